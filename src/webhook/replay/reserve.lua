-- Takes a message, and its event id where it has one, for one holder. Answers who has it.
--
-- KEYS  message [event]
-- ARGV  holder, now (ms, the node's), lease (ms), the message's own end (ms), margin (ms)
--
-- A value is "i:" and the holder (in flight; the key's expiry is the lease, by this server's clock), or
-- "d:" and the moment until which it counts (done; by the clock that judged the timestamp, which is
-- the asking node's). The expiry of a done key is later than that by a margin, for clocks that differ.
local holder, now, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function look(key)
    local value = redis.call('GET', key)
    if not value then
        return 'nothing'
    end
    if value:sub(1, 2) == 'i:' then
        return 'in_flight'
    end
    if tonumber(value:sub(3)) > now then
        return 'done'
    end
    return 'nothing'
end

local message = look(KEYS[1])
if message == 'done' then
    return 'message_done'
end
if message == 'in_flight' then
    return 'in_flight'
end
if KEYS[2] then
    local event = look(KEYS[2])
    if event == 'done' then
        -- These bytes were answered with success once; the next copy is a replay.
        local until_ms, margin = tonumber(ARGV[4]), tonumber(ARGV[5])
        if until_ms > now then
            redis.call('SET', KEYS[1], 'd:' .. ARGV[4], 'PX', until_ms - now + margin)
        end
        return 'event_done'
    end
    if event == 'in_flight' then
        return 'in_flight'
    end
end
for _, key in ipairs(KEYS) do
    redis.call('SET', key, 'i:' .. holder, 'PX', lease)
end
return 'fresh'
