//! What an order must say to be recorded.

use serde_json::Value;

use crate::kernel::input::{Fault, Faults, Fields};

pub(crate) struct NewOrder {
    pub org_id: String,
    pub branch_id: String,
    pub total_minor: i64,
    pub currency: String,
}

impl NewOrder {
    pub(crate) fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let fields = Fields::of(body);
        let org_id = fields.id("orgId", &mut faults);
        let branch_id = fields.id("branchId", &mut faults);
        let total_minor = fields.amount("total", &mut faults);
        let currency = fields.currency("currency", &mut faults);
        faults.finish()?;
        Ok(Self {
            org_id: org_id.unwrap_or_default(),
            branch_id: branch_id.unwrap_or_default(),
            total_minor: total_minor.unwrap_or_default(),
            currency: currency.unwrap_or_default(),
        })
    }
}
