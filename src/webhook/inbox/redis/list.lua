-- One page of entries that match. Gives the cursor of the next page (or nothing), then the entries.
--
-- ARGV  order (oldest or newest), cursor (a number or nothing), most entries, most entries looked at,
--       standing, endpoint, event id, its hash, received from, received before; nothing = any
local oldest, cursor, limit, look = ARGV[1] == 'oldest', ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local standing, endpoint, event_id, event_hash = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local from, before = tonumber(ARGV[9]), tonumber(ARGV[10])

local indexes = {}
if event_id ~= '' then
    indexes = {event_key(event_hash)}
elseif standing == '' and endpoint == '' then
    indexes = {P .. ':all'}
else
    local known = {}
    if endpoint ~= '' then
        known = {endpoint}
    else
        for _, field in ipairs(redis.call('HKEYS', P .. ':count')) do
            local name = field:match('^entries:' .. standing .. ':(.*)$')
            if name then
                known[#known + 1] = name
            end
        end
    end
    local standings = standing ~= '' and {standing} or {'pending', 'dead', 'delivered'}
    for _, s in ipairs(standings) do
        for _, name in ipairs(known) do
            indexes[#indexes + 1] = list_key(s, name)
        end
    end
end

local ids, more = {}, false
for _, index in ipairs(indexes) do
    local some
    if oldest then
        some = redis.call('ZRANGEBYSCORE', index, cursor ~= '' and cursor or '-inf', '+inf', 'LIMIT', 0, look)
    else
        some = redis.call('ZREVRANGEBYSCORE', index, cursor ~= '' and cursor or '+inf', '-inf', 'LIMIT', 0, look)
    end
    more = more or #some == look
    for _, id in ipairs(some) do
        ids[#ids + 1] = id
    end
end
table.sort(ids, function(a, b)
    if oldest then
        return a < b
    end
    return a > b
end)

local out = {''}
for i, id in ipairs(ids) do
    if #out > limit or i > look then
        out[1] = id
        return out
    end
    local v = redis.call('HMGET', entry_key(id), 'standing', 'endpoint', 'event_id', 'received_at')
    if v[1] and (standing == '' or v[1] == standing) and (endpoint == '' or v[2] == endpoint)
        and (event_id == '' or v[3] == event_id)
        and (not from or tonumber(v[4]) >= from) and (not before or tonumber(v[4]) < before) then
        out[#out + 1] = summary(id)
    end
end
if more then
    -- Everything up to the last one was looked at; the next page begins behind it.
    local last = tonumber(ids[#ids], 16) + (oldest and 1 or -1)
    if last >= 0 then
        out[1] = string.format('%016x', last)
    end
end
return out
