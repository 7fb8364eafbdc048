-- How much there is: claimed entries and all bytes first, then for each endpoint and standing its name,
-- entries, bytes and when the oldest was received.
local claimed = 0
for _, destination in ipairs(redis.call('SMEMBERS', P .. ':destinations')) do
    local ready = ready_key(destination)
    if redis.call('EXISTS', ready) == 1 then
        claimed = claimed + redis.call('XPENDING', ready, GROUP)[1]
    end
end
local bytes = total('bytes', 'held') + total('bytes', 'delivered')
local out = {{tostring(claimed), string.format('%.0f', bytes)}}
for _, field in ipairs(redis.call('HKEYS', P .. ':count')) do
    local standing, endpoint = field:match('^entries:(%a+):(.*)$')
    if standing then
        local oldest = redis.call('ZRANGE', list_key(standing, endpoint), 0, 0)[1]
        local received_at = oldest and redis.call('HGET', entry_key(oldest), 'received_at')
        out[#out + 1] = {
            endpoint,
            standing,
            redis.call('HGET', P .. ':count', field),
            redis.call('HGET', P .. ':count', 'bytes:' .. standing .. ':' .. endpoint) or '0',
            received_at or '',
        }
    end
end
return out
