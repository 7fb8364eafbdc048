//! What a receipt must say, and what it does to a purchase order's status.

use serde_json::Value;

use crate::kernel::input::{Fault, Faults, Fields};

const ITEMS_MAX: usize = 200;
const RECEIVED_BY_CHARS_MAX: usize = 120;

pub(crate) struct Receipt {
    pub org_id: String,
    pub po_id: String,
    pub received_by: String,
    /// In the order of item ids, each once: two receipts then lock lines in the same order.
    pub items: Vec<ReceivedItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReceivedItem {
    pub item_id: String,
    pub quantity_milli: i64,
}

/// Whether goods may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoStatus {
    Approved,
    Closed,
    Draft,
    PartlyReceived,
    Received,
}

impl PoStatus {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [
            Self::Approved,
            Self::Closed,
            Self::Draft,
            Self::PartlyReceived,
            Self::Received,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::Closed => "CLOSED",
            Self::Draft => "DRAFT",
            Self::PartlyReceived => "PARTLY_RECEIVED",
            Self::Received => "RECEIVED",
        }
    }

    pub(crate) fn receivable(self) -> bool {
        match self {
            Self::Approved | Self::PartlyReceived => true,
            Self::Closed | Self::Draft | Self::Received => false,
        }
    }
}

impl Receipt {
    pub(crate) fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let fields = Fields::of(body);
        let org_id = fields.id("orgId", &mut faults);
        let po_id = fields.id("poId", &mut faults);
        let received_by = fields.text("receivedBy", RECEIVED_BY_CHARS_MAX, &mut faults);
        let list = fields
            .list("items", ITEMS_MAX, &mut faults)
            .unwrap_or_default();
        let mut items = Vec::with_capacity(list.len());
        for (place, entry) in list.iter().enumerate() {
            let entry = Fields::nested(entry, format!("items[{place}]"));
            let item_id = entry.id("itemId", &mut faults);
            let quantity = entry.quantity_milli("quantity", &mut faults);
            let Some((item_id, quantity_milli)) = item_id.zip(quantity) else {
                continue;
            };
            if items
                .iter()
                .any(|seen: &ReceivedItem| seen.item_id == item_id)
            {
                faults.add(entry.name("itemId"), "appears more than once");
            }
            items.push(ReceivedItem {
                item_id,
                quantity_milli,
            });
        }
        faults.finish()?;
        items.sort();
        Ok(Self {
            org_id: org_id.unwrap_or_default(),
            po_id: po_id.unwrap_or_default(),
            received_by: received_by.unwrap_or_default(),
            items,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_of_a_receipt_is_listed() {
        let body = json!({"items": [
            {"itemId": "itm_a", "quantity": 0},
            {"quantity": 2},
            {"itemId": "itm_b", "quantity": 1},
            {"itemId": "itm_b", "quantity": 1},
        ]});
        let faults = Receipt::parse(&body).map(|_| ()).unwrap_err();
        let names: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            names,
            [
                "orgId",
                "poId",
                "receivedBy",
                "items[0].quantity",
                "items[1].itemId",
                "items[3].itemId"
            ]
        );
    }

    #[test]
    fn only_approved_orders_take_goods() {
        assert!(PoStatus::Approved.receivable() && PoStatus::PartlyReceived.receivable());
        assert!(!PoStatus::Draft.receivable() && !PoStatus::Received.receivable());
        assert_eq!(
            PoStatus::parse("PARTLY_RECEIVED"),
            Some(PoStatus::PartlyReceived)
        );
    }
}
