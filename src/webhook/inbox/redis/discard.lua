-- Removes entries for good, also those in flight; says how many there were.
--
-- ARGV  now, then ids
local touched = 0
for i = 2, #ARGV do
    local e = read(ARGV[i])
    if e then
        erase(ARGV[i], e, ARGV[1])
        touched = touched + 1
    end
end
return touched
