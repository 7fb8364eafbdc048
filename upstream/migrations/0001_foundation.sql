-- One text for SQLite and PostgreSQL: ids are TEXT, times are unix milliseconds in BIGINT, flags
-- are 0/1 in BIGINT, money is minor units in BIGINT beside a currency.

CREATE TABLE organisations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    currency TEXT NOT NULL,
    plan TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE branches (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX idx_branches_org ON branches (org_id);

-- auth

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE memberships (
    user_id TEXT NOT NULL REFERENCES users (id),
    org_id TEXT NOT NULL REFERENCES organisations (id),
    role TEXT NOT NULL,
    PRIMARY KEY (user_id, org_id)
);

-- Keyed by the address as typed, whether or not it has an account, so that a lock-out says nothing
-- about who is registered.
CREATE TABLE login_attempts (
    email TEXT PRIMARY KEY,
    failures BIGINT NOT NULL,
    last_attempt_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason TEXT
);
CREATE INDEX idx_sessions_user ON sessions (user_id);

CREATE TABLE refresh_tokens (
    token_hash TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id),
    issued_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX idx_refresh_tokens_session ON refresh_tokens (session_id);

CREATE TABLE access_tokens (
    jti TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id),
    expires_at BIGINT NOT NULL
);
CREATE INDEX idx_access_tokens_session ON access_tokens (session_id);

-- One row per slot: two replicas that start at once on an empty database agree on one 'active' key.
CREATE TABLE signing_keys (
    slot TEXT PRIMARY KEY,
    kid TEXT NOT NULL UNIQUE,
    seed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- outbox: one gapless sequence per topic (an organisation, or 'edge'). The head row is the lock
-- that makes the order of ids the order of commits, so a reader at `id` has missed nothing below.

CREATE TABLE outbox_heads (
    topic TEXT PRIMARY KEY,
    last_id BIGINT NOT NULL
);

CREATE TABLE outbox_events (
    topic TEXT NOT NULL,
    id BIGINT NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (topic, id)
);
CREATE INDEX idx_outbox_events_created ON outbox_events (created_at);

CREATE TABLE idempotency_keys (
    caller TEXT NOT NULL,
    operation TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (caller, operation, idempotency_key)
);
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at);

-- orders

CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES organisations (id),
    branch_id TEXT NOT NULL REFERENCES branches (id),
    status TEXT NOT NULL,
    total_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    business_day BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX idx_orders_org_day ON orders (org_id, business_day, branch_id);
CREATE INDEX idx_order_branch_status_updated ON orders (branch_id, status, updated_at DESC)
    WHERE status = 'CLOSED';

-- A running total per organisation and day, kept in the transaction that closes the order.
CREATE TABLE kpi_days (
    org_id TEXT NOT NULL REFERENCES organisations (id),
    business_day BIGINT NOT NULL,
    revenue_minor BIGINT NOT NULL,
    orders BIGINT NOT NULL,
    PRIMARY KEY (org_id, business_day)
);

-- purchasing and stock: quantities are thousandths of the item's unit

CREATE TABLE suppliers (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL
);

CREATE TABLE inventory_items (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL,
    unit TEXT NOT NULL,
    is_active BIGINT NOT NULL
);
CREATE INDEX idx_inventory_item_org_active ON inventory_items (org_id) WHERE is_active = 1;

CREATE TABLE purchase_orders (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES organisations (id),
    branch_id TEXT NOT NULL REFERENCES branches (id),
    supplier_id TEXT NOT NULL REFERENCES suppliers (id),
    status TEXT NOT NULL,
    currency TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX idx_purchase_orders_org_status ON purchase_orders (org_id, status, created_at);

CREATE TABLE purchase_order_lines (
    po_id TEXT NOT NULL REFERENCES purchase_orders (id),
    item_id TEXT NOT NULL REFERENCES inventory_items (id),
    ordered_milli BIGINT NOT NULL,
    received_milli BIGINT NOT NULL,
    unit_cost_minor BIGINT NOT NULL,
    PRIMARY KEY (po_id, item_id),
    CHECK (received_milli >= 0 AND received_milli <= ordered_milli)
);

CREATE TABLE stock_batches (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL REFERENCES organisations (id),
    branch_id TEXT NOT NULL REFERENCES branches (id),
    item_id TEXT NOT NULL REFERENCES inventory_items (id),
    po_id TEXT NOT NULL REFERENCES purchase_orders (id),
    received_milli BIGINT NOT NULL,
    remaining_milli BIGINT NOT NULL,
    unit_cost_minor BIGINT NOT NULL,
    received_by TEXT NOT NULL,
    received_at BIGINT NOT NULL
);
CREATE INDEX idx_stock_batch_item_branch ON stock_batches (item_id, branch_id);
CREATE INDEX idx_stock_batch_po ON stock_batches (po_id);

-- billing: the organisation of a billing record is what the provider says, so it is no foreign key;
-- an event may come before the organisation does.

CREATE TABLE subscriptions (
    provider TEXT NOT NULL,
    external_id TEXT NOT NULL,
    org_id TEXT,
    status TEXT NOT NULL,
    status_at BIGINT NOT NULL,
    status_by TEXT NOT NULL,
    plan TEXT,
    plan_at BIGINT,
    plan_by TEXT,
    canceled_at BIGINT,
    PRIMARY KEY (provider, external_id)
);
CREATE INDEX idx_subscriptions_org ON subscriptions (org_id);

CREATE TABLE invoices (
    provider TEXT NOT NULL,
    external_id TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    org_id TEXT,
    currency TEXT,
    paid_minor BIGINT,
    refunded_minor BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    disputes BIGINT NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (provider, external_id)
);
CREATE INDEX idx_invoices_org ON invoices (org_id, created_at);

CREATE TABLE payments (
    id TEXT PRIMARY KEY,
    invoice_id TEXT NOT NULL REFERENCES invoices (id),
    kind TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT,
    event_id TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX idx_payments_invoice ON payments (invoice_id);

-- events in

CREATE TABLE webhook_events (
    endpoint TEXT NOT NULL,
    event_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (endpoint, event_id)
);
