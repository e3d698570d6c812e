--@include lib storage
-- update_many. ARGV: per item: uuid, available_at, started_at, updated_at, deliveries (-1: as it is), lines
local verdicts = {}
for i = 1, #ARGV do
  local id, available, started, updated, deliveries, at = unpack_struct('>c16dddd', ARGV[i])
  local value = rec:get(id)
  if value and head(value) then
    patch(id, value, run_of(id), available, started, updated, deliveries, string.sub(ARGV[i], at))
    verdicts[i] = '1'
  else
    verdicts[i] = '0'
  end
end
go_on_when_full()
commit()
return table.concat(verdicts)
