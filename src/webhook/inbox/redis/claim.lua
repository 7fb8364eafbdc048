-- Gives entries to one node: those of nodes that died, those whose time has come, those that are new.
--
-- ARGV  destination, most entries, now, node, lease (ms), bytes after which no more are taken
local destination, most, now, node, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local bytes_left = tonumber(ARGV[6])
local ready, later = ready_key(destination), later_key(destination)

for _, id in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', ARGV[3], 'LIMIT', 0, most)) do
    local e = read(id)
    if e and e.at == 'later' then
        make_ready(id, e, e.due)
    else
        redis.call('ZREM', later, id)
    end
end
if redis.call('EXISTS', ready) == 0 then
    return {}
end

local found = {}
local function take(item)
    local at, id = item[1], item[2] and item[2][2]
    local e = id and read(id)
    if not e or e.standing ~= 'pending' or e.at ~= at then
        redis.call('XACK', ready, GROUP, at)
        redis.call('XDEL', ready, at)
    elseif tonumber(e.due) > now then
        make_later(id, e, e.due)
    else
        found[#found + 1] = {id = id, at = at, due = tonumber(e.due)}
        bytes_left = bytes_left - tonumber(e.bytes)
    end
end

-- The pending list is looked at from where the last look ended, for live claims may fill its front.
local cursors = P .. ':cursors'
local from = redis.call('HGET', cursors, destination) or '0-0'
local reclaimed = redis.call('XAUTOCLAIM', ready, GROUP, node, lease, from, 'COUNT', most)
if reclaimed[1] ~= from then
    redis.call('HSET', cursors, destination, reclaimed[1])
end
for _, item in ipairs(reclaimed[2]) do
    if item then
        take(item)
    end
end
for _ = #found + 1, most do
    if bytes_left <= 0 then
        break
    end
    local new = redis.call('XREADGROUP', 'GROUP', GROUP, node, 'COUNT', 1, 'STREAMS', ready, '>')
    if not new then
        break
    end
    take(new[1][2][1])
end

table.sort(found, function(a, b)
    if a.due ~= b.due then
        return a.due < b.due
    end
    return a.id < b.id
end)
local out = {}
for i, entry in ipairs(found) do
    local v = redis.call('HMGET', entry_key(entry.id),
        'attempts', 'first_failed_at', 'redelivered_at', 'event')
    out[i] = {entry.id, entry.at, v[1] or '0', v[2] or '', v[3] or '', v[4] or ''}
end
return out
