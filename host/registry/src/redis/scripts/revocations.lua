-- KEYS: log, about. ARGV: the store that was read last, the version read, most entries, the entry of that
-- version.
local incarnation = redis.call('HGET', KEYS[2], 'incarnation') or ''
local version = redis.call('HGET', KEYS[2], 'version') or '0'
local after = ARGV[2]
-- A version that went back is a store that lost its last writes.
local reset = incarnation ~= ARGV[1] or tonumber(version) < tonumber(after)
-- So is one in which the version read is another entry's, or nobody's.
if not reset and after ~= '0' then
  local score = redis.call('ZSCORE', KEYS[1], ARGV[4])
  reset = not score or tonumber(score) ~= tonumber(after)
end
if reset then after = '0' end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. after, '+inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[3])
local answer = { 'ok', incarnation, reset and '1' or '0' }
for _, each in ipairs(found) do table.insert(answer, each) end
return answer
