-- KEYS: record. Whether somebody owns the agent now, and what its record says.
local record = redis.call('HMGET', KEYS[1], 'counter', 'replica', 'until', 'revision',
  'connectors', 'facts')
if not record[1] or tonumber(record[3]) <= now() then return { 'nobody' } end
return { 'owned', record[1], record[2], record[4] or '0', record[5] or '', record[6] or '' }
