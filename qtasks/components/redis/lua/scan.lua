--@include lib storage
-- scan: newest first, by the order of creation. ARGV: the last place seen or '', limit
local from = ARGV[1] == '' and '+' or '(' .. ARGV[1]
local page = call('XREVRANGE', K.ord, from, '-', 'COUNT', ARGV[2])
local reply = { #page == tonumber(ARGV[2]) and page[#page][1] or '' }
for i = 1, #page do
  local id = page[i][2][2]
  if rec:get(id) or res:get(id) then
    shown(id, reply)
  else
    call('XDEL', K.ord, page[i][1])
  end
end
return reply
