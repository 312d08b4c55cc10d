-- KEYS: record. ARGV: counter, replica, connectors with spaces between, facts.
local key = KEYS[1]
local blocked = not_held(key, ARGV[1], ARGV[2])
if blocked then return blocked end
local earlier = redis.call('HGET', key, 'connectors') or ''
redis.call('HSET', key, 'connectors', ARGV[3], 'facts', ARGV[4])
local revision = redis.call('HINCRBY', key, 'revision', 1)
return { 'ok', text(revision), earlier }
