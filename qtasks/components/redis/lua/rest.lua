-- A worker that found less than it wanted leaves word where it can be told of more, and on which terms (add_plain.lua); a
-- full server may refuse that, which costs latency only. Gives the seconds until the next entry is due, '' where none
-- waits, '0' and no word where there is more.
local function rest_until_due(channel, names, terms)
  for key = FIXED + 1, #KEYS, 3 do
    if call('ZCARD', KEYS[key]) > 0 then return '0' end
  end
  if channel ~= '' then redis.pcall('HSET', K.wake, channel, ' ' .. names .. ' ' .. terms) end
  local due = ''
  for key = FIXED + 2, #KEYS, 3 do
    local first = call('ZRANGE', KEYS[key], 0, 0, 'WITHSCORES')
    if first[2] and (due == '' or tonumber(first[2]) < due) then due = tonumber(first[2]) end
  end
  return due == '' and '' or text(math.max(due - now, 0))
end
