-- KEYS: until, about. The hubs that are present, each with its boot in front.
local answer = { 'ok' }
local from = '(' .. text(now())
for _, replica in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf')) do
  local about = redis.call('HGET', KEYS[2], replica)
  if about then table.insert(answer, about) end
end
return answer
