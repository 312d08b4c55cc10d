-- KEYS: lease. ARGV: holder, ttl ms.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return { 'taken' } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 'ok' }
