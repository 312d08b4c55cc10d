-- KEYS: log, about. ARGV: the store that was read last, the version read, most entries.
local incarnation = redis.call('HGET', KEYS[2], 'incarnation') or ''
local version = redis.call('HGET', KEYS[2], 'version') or '0'
local after = ARGV[2]
-- A version that went back is a store that lost its last writes.
local reset = incarnation ~= ARGV[1] or tonumber(version) < tonumber(after)
if reset then after = '0' end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. after, '+inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[3])
local answer = { 'ok', incarnation, reset and '1' or '0' }
for _, each in ipairs(found) do table.insert(answer, each) end
return answer
