-- KEYS: record. ARGV: counter, replica.
local key = KEYS[1]
local blocked = not_held(key, ARGV[1], ARGV[2])
if blocked then return blocked end
local record = redis.call('HMGET', key, 'revision', 'connectors')
redis.call('HSET', key, 'until', '0', 'connectors', '', 'facts', '')
return { 'ok', record[1] or '0', record[2] or '' }
