--@include lib storage
-- The finished record, or word is left where to tell of it. ARGV: uuid, channel ('' leaves no word)
local id, channel = ARGV[1], ARGV[2]
local value = res:get(id)
if value then return { 'F', value } end
if not rec:get(id) then return { '' } end
if channel ~= '' then
  go_on_when_full()
  local others = wait:get(id) or ''
  if not string.find(' ' .. others .. ' ', ' ' .. channel .. ' ', 1, true) then
    wait:put(id, others == '' and channel or others .. ' ' .. channel)
  end
end
commit()
return { 'R' }
