-- KEYS: index. ARGV: agent, counter, replica, revision, most agents, memory ms.
local key, agent, counter, replica, revision = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local present = redis.call('HGET', key, agent)
if present then
  local other_counter, other_replica, other_revision =
    string.match(present, '^(%d+) (%S+) (%d+)$')
  if other_counter then
    if below(counter, replica, other_counter, other_replica) then return { 'later' } end
    if counter == other_counter and replica == other_replica
      and tonumber(revision) < tonumber(other_revision) then
      return { 'later' }
    end
  end
else
  local agents = redis.call('HLEN', key)
  if agents >= tonumber(ARGV[5]) then return { 'full', text(agents) } end
end
redis.call('HSET', key, agent, counter .. ' ' .. replica .. ' ' .. revision)
redis.call('PEXPIRE', key, ARGV[6])
return { 'ok' }
