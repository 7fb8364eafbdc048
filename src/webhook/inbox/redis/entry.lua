-- What the scripts of the inbox share; put in front of each of them.
--
-- KEYS[1] is the prefix of all keys. An id is 16 hex digits, so that equal scores keep the order of ids.
--
--   next                   the last id given
--   entry:ID               hash: event (bytes) and the fields of `read`
--   history:ID             list: the latest attempts
--   ready:DESTINATION      stream: entries to be attempted, read by the group `edge`; what is claimed is in
--                          its pending list, under the name of the node, idle since it was last renewed
--   later:DESTINATION      sorted set: entries by the time they are due
--   lane:KEY               sorted set: entries of one order key by id; only the first is ready or later
--   all, list:STANDING:ENDPOINT, event:HASH   sorted sets by id, for the operator
--   ended:STANDING         sorted set: the dead and the delivered by the time they ended
--   count                  hash: how many and how much
--   destinations           set
--
-- The field `at` says where a pending entry is: an id of the stream, `later`, or nothing (in its lane).
local P = KEYS[1]
local GROUP = 'edge'
local HISTORY_MAX = 16
local FIELDS = {'standing', 'endpoint', 'destination', 'event_id', 'bytes', 'lane', 'due', 'at', 'event_hash'}

local function entry_key(id) return P .. ':entry:' .. id end
local function history_key(id) return P .. ':history:' .. id end
local function ready_key(destination) return P .. ':ready:' .. destination end
local function later_key(destination) return P .. ':later:' .. destination end
local function lane_key(lane) return P .. ':lane:' .. lane end
local function list_key(standing, endpoint) return P .. ':list:' .. standing .. ':' .. endpoint end
local function ended_key(standing) return P .. ':ended:' .. standing end
local function event_key(hash) return P .. ':event:' .. hash end
local function number(id) return string.format('%.0f', tonumber(id, 16)) end

local function read(id)
    local values = redis.call('HMGET', entry_key(id), unpack(FIELDS))
    if not values[1] then
        return nil
    end
    local e = {}
    for i, name in ipairs(FIELDS) do
        e[name] = values[i] or ''
    end
    return e
end

local function add(field, by)
    if redis.call('HINCRBY', P .. ':count', field, by) == 0 then
        redis.call('HDEL', P .. ':count', field)
    end
end

local function count(standing, e, entries)
    local bytes = string.format('%.0f', tonumber(e.bytes) * entries)
    local class = standing == 'delivered' and 'delivered' or 'held'
    add('total:entries:' .. class, entries)
    add('total:bytes:' .. class, bytes)
    add('entries:' .. standing .. ':' .. e.endpoint, entries)
    add('bytes:' .. standing .. ':' .. e.endpoint, bytes)
end

local function total(what, class)
    return tonumber(redis.call('HGET', P .. ':count', 'total:' .. what .. ':' .. class) or '0')
end

local function is_claimed(e, by)
    if e.at == '' or e.at == 'later' then
        return false
    end
    local ready = ready_key(e.destination)
    if by then
        return #redis.call('XPENDING', ready, GROUP, e.at, e.at, 1, by) > 0
    end
    return #redis.call('XPENDING', ready, GROUP, e.at, e.at, 1) > 0
end

-- Takes a pending entry from where it is; its claim, if there is one, ends.
local function withdraw(id, e)
    if e.at == 'later' then
        redis.call('ZREM', later_key(e.destination), id)
    elseif e.at ~= '' then
        redis.call('XACK', ready_key(e.destination), GROUP, e.at)
        redis.call('XDEL', ready_key(e.destination), e.at)
    end
    e.at = ''
end

local function place(id, e, at, due)
    e.at, e.due = at, due
    redis.call('HSET', entry_key(id), 'at', at, 'due', due)
end

local function make_ready(id, e, due)
    withdraw(id, e)
    local ready = ready_key(e.destination)
    if redis.call('EXISTS', ready) == 0 then
        redis.call('XGROUP', 'CREATE', ready, GROUP, '0', 'MKSTREAM')
    end
    place(id, e, redis.call('XADD', ready, '*', 'id', id), due)
end

local function make_later(id, e, due)
    withdraw(id, e)
    redis.call('ZADD', later_key(e.destination), due, id)
    place(id, e, 'later', due)
end

-- The next of the lane may go when this one was its first.
local function leave_lane(id, e, now)
    if e.lane == '' then
        return
    end
    local lane = lane_key(e.lane)
    local first = redis.call('ZRANGE', lane, 0, 0)[1]
    redis.call('ZREM', lane, id)
    redis.call('HSET', entry_key(id), 'lane', '')
    e.lane = ''
    if first ~= id then
        return
    end
    local next_id = redis.call('ZRANGE', lane, 0, 0)[1]
    local next_entry = next_id and read(next_id)
    if next_entry then
        make_ready(next_id, next_entry, now)
    end
end

local function stand(id, e, standing)
    redis.call('ZREM', list_key(e.standing, e.endpoint), id)
    count(e.standing, e, -1)
    if e.standing ~= 'pending' then
        redis.call('ZREM', ended_key(e.standing), id)
    end
    e.standing = standing
    redis.call('ZADD', list_key(standing, e.endpoint), number(id), id)
    count(standing, e, 1)
    redis.call('HSET', entry_key(id), 'standing', standing)
end

local function finish(id, e, standing, reason, now)
    withdraw(id, e)
    place(id, e, '', '')
    leave_lane(id, e, now)
    stand(id, e, standing)
    redis.call('ZADD', ended_key(standing), now, id)
    redis.call('HSET', entry_key(id), 'ended_at', now, 'reason', reason)
end

local function erase(id, e, now)
    withdraw(id, e)
    leave_lane(id, e, now)
    redis.call('ZREM', list_key(e.standing, e.endpoint), id)
    redis.call('ZREM', event_key(e.event_hash), id)
    redis.call('ZREM', P .. ':all', id)
    if e.standing ~= 'pending' then
        redis.call('ZREM', ended_key(e.standing), id)
    end
    count(e.standing, e, -1)
    redis.call('DEL', entry_key(id), history_key(id))
end

-- Delivered entries beyond their bytes go, oldest first, and a few more; whether there are more to go.
local function shrink_delivered(bytes_max, now, most)
    if total('bytes', 'delivered') <= bytes_max then
        return false
    end
    for _, id in ipairs(redis.call('ZRANGE', ended_key('delivered'), 0, most - 1)) do
        if total('bytes', 'delivered') <= bytes_max / 16 * 15 then
            return false
        end
        local e = read(id)
        if e then
            erase(id, e, now)
        end
    end
    return total('bytes', 'delivered') > bytes_max
end

local SUMMARY = {
    'standing', 'endpoint', 'destination', 'event_id', 'received_at', 'bytes', 'due', 'reason', 'ended_at',
    'attempts', 'first_failed_at', 'redelivered_at',
}

local function summary(id)
    local values = redis.call('HMGET', entry_key(id), unpack(SUMMARY))
    local out = {id}
    for i = 1, #SUMMARY do
        out[i + 1] = values[i] or ''
    end
    for _, attempt in ipairs(redis.call('LRANGE', history_key(id), 0, -1)) do
        out[#out + 1] = attempt
    end
    return out
end
