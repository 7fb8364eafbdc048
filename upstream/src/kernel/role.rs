//! Who may do what: the permission matrix. A role says nothing about which organisation; that is the
//! caller's membership.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Owner,
    Manager,
    Chef,
    Waiter,
    Cashier,
    Accountant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    CloseOrders,
    ReceiveStock,
    ViewFigures,
}

impl Role {
    pub(crate) const ALL: [Self; 6] = [
        Self::Owner,
        Self::Manager,
        Self::Chef,
        Self::Waiter,
        Self::Cashier,
        Self::Accountant,
    ];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Manager => "manager",
            Self::Chef => "chef",
            Self::Waiter => "waiter",
            Self::Cashier => "cashier",
            Self::Accountant => "accountant",
        }
    }

    pub(crate) fn allows(self, permission: Permission) -> bool {
        match permission {
            Permission::CloseOrders => match self {
                Self::Owner | Self::Manager | Self::Waiter | Self::Cashier => true,
                Self::Chef | Self::Accountant => false,
            },
            Permission::ReceiveStock => match self {
                Self::Owner | Self::Manager | Self::Chef => true,
                Self::Waiter | Self::Cashier | Self::Accountant => false,
            },
            Permission::ViewFigures => match self {
                Self::Owner | Self::Manager | Self::Accountant => true,
                Self::Chef | Self::Waiter | Self::Cashier => false,
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_managers_may_do_everything_and_names_round_trip() {
        for permission in [
            Permission::CloseOrders,
            Permission::ReceiveStock,
            Permission::ViewFigures,
        ] {
            assert!(Role::Owner.allows(permission) && Role::Manager.allows(permission));
        }
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
        assert!(!Role::Waiter.allows(Permission::ViewFigures));
    }
}
