-- One entry whole: its event, then what a list says of it. Nothing where there is none.
--
-- ARGV  id
local event = redis.call('HGET', entry_key(ARGV[1]), 'event')
if not event then
    return {}
end
local out = summary(ARGV[1])
table.insert(out, 1, event)
return out
