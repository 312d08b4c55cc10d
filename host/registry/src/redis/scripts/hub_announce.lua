-- KEYS: until, about. ARGV: replica, boot, about, presence ms, most hubs.
local replica, boot, about = ARGV[1], ARGV[2], ARGV[3]
local at = now()
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(at), 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
end
local present = redis.call('HGET', KEYS[2], replica)
if present then
  local other = string.match(present, '^(%d+) ')
  local till = tonumber(redis.call('ZSCORE', KEYS[1], replica) or '0')
  if other ~= boot and till > at then return { 'taken', text(till - at) } end
else
  local hubs = redis.call('ZCARD', KEYS[1])
  if hubs >= tonumber(ARGV[5]) then return { 'full', text(hubs) } end
end
redis.call('ZADD', KEYS[1], text(at + tonumber(ARGV[4])), replica)
redis.call('HSET', KEYS[2], replica, boot .. ' ' .. about)
return { 'ok' }
