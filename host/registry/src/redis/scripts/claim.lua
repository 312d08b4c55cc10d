-- KEYS: record. ARGV: counter to be above, replica, lease ms, memory ms, highest counter, how far above
-- the stored counter the first is believed ('' is however far), and where nothing is stored.
local key, floor, replica = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local lease, memory, highest = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local record = redis.call('HMGET', key, 'counter', 'replica', 'until')
local leap = tonumber(ARGV[6])
if leap then
  local most = record[1] and tonumber(record[1]) + leap or tonumber(ARGV[7])
  if floor > most then return { 'leapt', text(most) } end
end
local stored = math.max(tonumber(record[1] or '0'), floor)
if stored >= highest then return { 'spent', text(stored) } end
local at = now()
redis.call('HSET', key, 'counter', text(stored + 1), 'replica', replica,
  'until', text(at + lease), 'revision', '0', 'connectors', '', 'facts', '')
redis.call('PEXPIRE', key, memory)
if record[1] and tonumber(record[3]) > at then
  return { 'granted', text(stored + 1), record[1], record[2] }
end
return { 'granted', text(stored + 1) }
