-- KEYS: record. ARGV: counter, replica, lease ms, memory ms.
local key, counter, replica = KEYS[1], ARGV[1], ARGV[2]
local lease, memory = tonumber(ARGV[3]), ARGV[4]
local blocked = not_held(key, counter, replica)
if blocked and blocked[1] == 'overtaken' then return blocked end
-- One that was released is taken up again: only its holder can ask for it.
if blocked and blocked[1] == 'forgotten' then
  redis.call('HSET', key, 'counter', counter, 'replica', replica,
    'revision', '0', 'connectors', '', 'facts', '')
end
redis.call('HSET', key, 'until', text(now() + lease))
redis.call('PEXPIRE', key, memory)
return { 'ok' }
