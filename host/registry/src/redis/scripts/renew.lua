-- KEYS: record. ARGV: counter, replica, lease ms, memory ms.
local key = KEYS[1]
local blocked = not_held(key, ARGV[1], ARGV[2])
if blocked then return blocked end
redis.call('HSET', key, 'until', text(now() + tonumber(ARGV[3])))
redis.call('PEXPIRE', key, ARGV[4])
return { 'ok' }
