-- KEYS: value. ARGV: '1' if one is expected, it, '1' if there is a new one, it, ttl ms or '0'.
local present = redis.call('GET', KEYS[1])
local expected = ARGV[1] == '1' and ARGV[2]
if present ~= expected then
  if present then return { 'differs', present } end
  return { 'differs' }
end
if ARGV[3] ~= '1' then
  redis.call('DEL', KEYS[1])
elseif ARGV[5] == '0' then
  redis.call('SET', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return { 'ok' }
