//! Rows in order of their keys: what a store of rows must offer, a set of changes, and how a command
//! sees the changes that are not written yet. Knows nothing of events.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Bound, ControlFlow};

/// Where rows of one kind of size and life live together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Table {
    /// Event by id; never rewritten.
    Bodies,
    /// What became of it, by id; small, rewritten with each attempt.
    Entries,
    /// What is due, lanes, lists, marks; see `key`.
    Index,
    /// What replay protection remembers, by its end.
    Memories,
}

/// Rows cannot be read or written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum RowError {
    #[error("{0}")]
    Store(String),
    #[error(
        "a row of {table:?} has format {found} and this version of maitred knows {known}; start the \
         version that wrote the inbox, or move its folder aside"
    )]
    Format { table: Table, found: u8, known: u8 },
    #[error(
        "a row of {0:?} cannot be read: the inbox is damaged; restore its folder from a backup"
    )]
    Garbled(Table),
}

/// What a scan does with one row: key and value.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Ordered rows, to be read.
pub(super) trait Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowError>;

    /// Rows of `from..to` in ascending order, until `visit` breaks.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError>;
}

/// Rows that can also be read backwards; only a store can, not a command's view.
pub(super) trait StoredRows: Rows {
    /// Rows of `from..to` in descending order, until `visit` breaks.
    fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError>;

    /// What the store takes on disk.
    fn disk_bytes(&self) -> u64;
}

/// Rows to write, `None` = remove.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Writes(BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>);

impl Writes {
    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert((table, key), Some(value));
    }

    pub(super) fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.0.insert((table, key), None);
    }

    /// `later` counts where both speak of a row.
    pub(super) fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, (Table, Vec<u8>), Option<Vec<u8>>> {
        self.0.iter()
    }

    fn find(&self, table: Table, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        // A borrowed form of the pair would need a key type of its own; keys are short.
        self.0.get(&(table, key.to_vec()))
    }

    fn range<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let bounds = (
            Bound::Included((table, from.to_vec())),
            Bound::Excluded((table, to.to_vec())),
        );
        self.0
            .range(bounds)
            .map(|((_, key), value)| (key.as_slice(), value.as_deref()))
    }
}

impl IntoIterator for Writes {
    type Item = ((Table, Vec<u8>), Option<Vec<u8>>);
    type IntoIter = btree_map::IntoIter<(Table, Vec<u8>), Option<Vec<u8>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a command sees: stored rows, under those of earlier commands of its batch, under its own.
pub(super) struct View<'a> {
    pub(super) stored: &'a dyn Rows,
    pub(super) batch: &'a Writes,
    pub(super) own: Writes,
}

impl View<'_> {
    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.own.put(table, key, value);
    }

    pub(super) fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.own.remove(table, key);
    }
}

impl Rows for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowError> {
        let unwritten = [&self.own, self.batch]
            .into_iter()
            .find_map(|writes| writes.find(table, key));
        match unwritten {
            Some(value) => Ok(value.clone()),
            None => self.stored.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), RowError> {
        if from >= to {
            return Ok(());
        }
        let mut above: BTreeMap<&[u8], Option<&[u8]>> = self.batch.range(table, from, to).collect();
        above.extend(self.own.range(table, from, to));
        let mut above = above.into_iter().peekable();
        let mut stopped = false;
        self.stored.scan(table, from, to, &mut |key, value| {
            // Unwritten rows that come first, or in this one's place.
            while let Some((at, unwritten)) = above.next_if(|(at, _)| *at <= key) {
                if let Some(unwritten) = unwritten
                    && visit(at, unwritten).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if at == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            stopped |= flow.is_break();
            flow
        })?;
        for (key, value) in above.filter(|_| !stopped) {
            if let Some(value) = value
                && visit(key, value).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::{Rows, Table, View, Writes};
    use crate::webhook::inbox::memory::MemoryRows;

    fn keys(view: &View<'_>, most: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        view.scan(Table::Index, &[1], &[9], &mut |key, value| {
            assert_eq!(key, value);
            seen.push(key[0]);
            match seen.len() == most {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .unwrap();
        seen
    }

    #[test]
    fn a_view_shows_unwritten_rows_over_stored_ones_in_order() {
        let stored = MemoryRows::default();
        let mut first = Writes::default();
        for key in [1, 3, 5, 7, 9] {
            first.put(Table::Index, vec![key], vec![key]);
        }
        stored.write(first);
        let mut batch = Writes::default();
        batch.put(Table::Index, vec![2], vec![2]);
        batch.remove(Table::Index, vec![3]);
        batch.remove(Table::Index, vec![7]);
        let mut view = View {
            stored: &stored,
            batch: &batch,
            own: Writes::default(),
        };
        view.put(Table::Index, vec![7], vec![7]);
        view.put(Table::Index, vec![8], vec![8]);
        view.remove(Table::Index, vec![1]);
        assert_eq!(keys(&view, 99), [2, 5, 7, 8]);
        for most in 1..4 {
            assert_eq!(keys(&view, most), [2, 5, 7, 8][..most]);
        }
        assert_eq!(view.get(Table::Index, &[3]).unwrap(), None);
        assert_eq!(view.get(Table::Index, &[7]).unwrap(), Some(vec![7]));
        assert_eq!(view.get(Table::Index, &[9]).unwrap(), Some(vec![9]));
    }
}
