-- Gives free what this holder still holds; never what a successor took after the lease.
--
-- KEYS  message [event]
-- ARGV  holder
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == 'i:' .. ARGV[1] then
        redis.call('DEL', key)
    end
end
return 'ok'
