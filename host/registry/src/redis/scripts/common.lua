-- Milliseconds by the store's clock, the only one that counts leases.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A whole number up to 2^53 as text. Lua's own form of large ones is 9e+15.
local function text(number)
  return string.format('%.0f', number)
end

-- Whether a comes before b byte by byte. Lua's `<` orders by the server's locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Whether one epoch is below another.
local function below(counter, replica, other_counter, other_replica)
  counter, other_counter = tonumber(counter), tonumber(other_counter)
  if counter ~= other_counter then return counter < other_counter end
  return before(replica, other_replica)
end

-- What stands in the way of the holder of an epoch, if anything does.
local function not_held(key, counter, replica)
  local record = redis.call('HMGET', key, 'counter', 'replica', 'until')
  if not record[1] then return { 'forgotten' } end
  if record[1] ~= counter or record[2] ~= replica then
    if below(record[1], record[2], counter, replica) then return { 'forgotten' } end
    return { 'overtaken', record[1], record[2] }
  end
  if record[3] == '0' then return { 'released' } end
  return nil
end
