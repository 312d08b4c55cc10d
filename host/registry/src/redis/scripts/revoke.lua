-- KEYS: log, until, about. ARGV: entry, ttl ms, most entries, a name for this store.
local at = now()
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(at), 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('HSETNX', KEYS[3], 'incarnation', ARGV[4])
local till = at + tonumber(ARGV[2])
local present = redis.call('ZSCORE', KEYS[2], ARGV[1])
if present then
  if tonumber(present) < till then redis.call('ZADD', KEYS[2], text(till), ARGV[1]) end
  return { 'ok' }
end
local entries = redis.call('ZCARD', KEYS[1])
if entries >= tonumber(ARGV[3]) then return { 'full', text(entries) } end
local version = redis.call('HINCRBY', KEYS[3], 'version', 1)
redis.call('ZADD', KEYS[1], text(version), ARGV[1])
redis.call('ZADD', KEYS[2], text(till), ARGV[1])
return { 'ok' }
