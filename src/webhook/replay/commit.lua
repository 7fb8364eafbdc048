-- Remembers that a message was accepted, whoever holds it now: the delivery did happen.
--
-- KEYS  message [event]
-- ARGV  now (ms, the node's), margin (ms), then for each key the moment until which it counts (ms)
local now, margin = tonumber(ARGV[1]), tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
    local until_ms = tonumber(ARGV[i + 2])
    local value = redis.call('GET', key)
    if value and value:sub(1, 2) == 'd:' then
        until_ms = math.max(until_ms, tonumber(value:sub(3)))
    end
    if until_ms > now then
        local text = string.format('%.0f', until_ms)
        redis.call('SET', key, 'd:' .. text, 'PX', string.format('%.0f', until_ms - now + margin))
    else
        redis.call('DEL', key)
    end
end
return 'ok'
