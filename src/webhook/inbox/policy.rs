//! How much an inbox keeps and for how long; the limits that an append meets.

/// How much is kept and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Pending and dead entries.
    pub entries_max: u64,
    /// What they take.
    pub bytes_max: u64,
    /// How long a dead entry can still be redelivered.
    pub dead_keep_s: u32,
    /// How long a delivered entry can still be looked at and redelivered.
    pub delivered_keep_s: u32,
    /// What delivered entries take; beyond it the oldest go.
    pub delivered_bytes_max: u64,
    /// With less room than this on its file system the inbox takes nothing new.
    pub disk_free_bytes_min: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            entries_max: 2_000_000,
            bytes_max: 8 << 30,
            dead_keep_s: 30 * 86_400,
            delivered_keep_s: 86_400,
            delivered_bytes_max: 1 << 30,
            disk_free_bytes_min: 512 << 20,
        }
    }
}
