-- KEYS: index. ARGV: agent, counter, replica, revision. Removes that entry or an earlier one.
local key, agent, counter, replica, revision = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local present = redis.call('HGET', key, agent)
if not present then return { 'none', text(redis.call('HLEN', key)) } end
local other_counter, other_replica, other_revision = string.match(present, '^(%d+) (%S+) (%d+)$')
if other_counter then
  local later = below(counter, replica, other_counter, other_replica)
    or (counter == other_counter and replica == other_replica
      and tonumber(revision) < tonumber(other_revision))
  if later then return { 'later', text(redis.call('HLEN', key)) } end
end
redis.call('HDEL', key, agent)
return { 'ok', text(redis.call('HLEN', key)) }
