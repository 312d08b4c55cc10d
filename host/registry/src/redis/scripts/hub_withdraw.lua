-- KEYS: until, about. ARGV: replica, boot.
local present = redis.call('HGET', KEYS[2], ARGV[1])
if not present or string.match(present, '^(%d+) ') ~= ARGV[2] then return { 'none' } end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return { 'ok' }
