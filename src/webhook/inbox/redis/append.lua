-- Keeps an event and what replay protection must remember of it, both or neither.
--
-- KEYS  prefix, then a replay key for each memory
-- ARGV  most entries, most bytes, endpoint, destination, event id, its hash, event, bytes, received at,
--       lane or nothing, now, margin, then for each memory the moment until which it counts
local entries_max, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local endpoint, destination, event_id, event_hash = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local event, bytes, received_at, lane = ARGV[7], ARGV[8], ARGV[9], ARGV[10]

if event ~= '' then
    if total('entries', 'held') >= entries_max then
        return 'entries_max'
    end
    if total('bytes', 'held') + tonumber(bytes) > bytes_max then
        return 'bytes_max'
    end
end

local id = ''
if event ~= '' then
    id = string.format('%016x', redis.call('INCR', P .. ':next'))
    redis.call('HSET', entry_key(id), 'event', event, 'standing', 'pending', 'endpoint', endpoint,
        'destination', destination, 'event_id', event_id, 'event_hash', event_hash, 'bytes', bytes,
        'received_at', received_at, 'lane', lane, 'attempts', 0, 'at', '', 'due', '')
    redis.call('ZADD', P .. ':all', number(id), id)
    redis.call('ZADD', list_key('pending', endpoint), number(id), id)
    redis.call('ZADD', event_key(event_hash), number(id), id)
    redis.call('SADD', P .. ':destinations', destination)
    local e = read(id)
    count('pending', e, 1)
    local may_go = true
    if lane ~= '' then
        redis.call('ZADD', lane_key(lane), number(id), id)
        may_go = redis.call('ZRANK', lane_key(lane), id) == 0
    end
    if may_go then
        make_ready(id, e, received_at)
    end
end

local now, margin = tonumber(ARGV[11]), tonumber(ARGV[12])
for i = 2, #KEYS do
    local until_ms = tonumber(ARGV[11 + i])
    local value = redis.call('GET', KEYS[i])
    if value and value:sub(1, 2) == 'd:' then
        until_ms = math.max(until_ms, tonumber(value:sub(3)))
    end
    if until_ms > now then
        redis.call('SET', KEYS[i], 'd:' .. string.format('%.0f', until_ms),
            'PX', string.format('%.0f', until_ms - now + margin))
    end
end
return id
