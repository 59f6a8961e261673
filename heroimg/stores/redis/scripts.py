"""The scripts that change a picture in Redis. Redis runs each of them alone, so that each is atomic.

Every script gets the picture's key, the current instant, and its own arguments. It reads the picture's fields by name,
and returns them as JSON; it returns nothing, and does nothing, if there is no such picture.
"""

from __future__ import annotations

from heroimg.stores.image import FIELD_NAMES

# The last is a field of the Redis hash alone.
STORED_NAMES = (*FIELD_NAMES, "blocks")

# A picture that was paid for stays this long after its time, so that a sweep can report it.
_GRACE_SECONDS = 86400

_LOOK = f"""
local now = tonumber(ARGV[1])
local names = {{'{"', '".join(STORED_NAMES)}'}}
local function look()
  local values, image = redis.call('HMGET', KEYS[1], unpack(names)), {{}}
  for number, name in ipairs(names) do image[name] = values[number] or nil end
  return image
end
local image = look()
if not image.mimetype then return false end
"""

_LOOK_CURRENT = f"""{_LOOK}
if tonumber(image.expires) <= now then return false end
local is_claimed = image.claim_token and tonumber(image.claim_until) > now
local function is_claimed_by_other(token) return is_claimed and image.claim_token ~= token end
local function set_expiry(image)
  redis.call('EXPIREAT', KEYS[1], image.expires + (image.checkout_complete and {_GRACE_SECONDS} or 0))
end
"""

CLAIM = f"""{_LOOK_CURRENT}
local token, claim_until = ARGV[2], ARGV[3]
if not is_claimed_by_other(token) then
  redis.call('HSET', KEYS[1], 'claim_token', token, 'claim_until', claim_until)
end
return cjson.encode(image)
"""

RENEW = f"""{_LOOK_CURRENT}
local token, claim_until = ARGV[2], ARGV[3]
if image.claim_token == token then redis.call('HSET', KEYS[1], 'claim_until', claim_until) end
return cjson.encode(image)
"""

RELEASE = f"""{_LOOK_CURRENT}
local token = ARGV[2]
if is_claimed and image.claim_token == token then redis.call('HDEL', KEYS[1], 'claim_token', 'claim_until') end
return cjson.encode(image)
"""

REMOVE = f"""{_LOOK_CURRENT}
local token = ARGV[2]
if not is_claimed_by_other(token) then redis.call('UNLINK', KEYS[1]) end
return cjson.encode(image)
"""

PIN = f"""{_LOOK_CURRENT}
local earliest, renewed = tonumber(ARGV[2]), tonumber(ARGV[3])
if tonumber(image.expires) < earliest then redis.call('HSET', KEYS[1], 'expires', math.max(earliest, renewed)) end
set_expiry(look())
return cjson.encode(look())
"""

_WITHOUT = """
local function without(sessions, session)
  local others = {}
  for other in string.gmatch(sessions or '', '%S+') do
    if other ~= session then table.insert(others, other) end
  end
  return others
end
"""

NOTE_CHECKOUT = f"""{_LOOK_CURRENT}{_WITHOUT}
local session, is_complete = ARGV[2], ARGV[3] == '1'
if session ~= '' and session ~= image.checkout_session then
  local to_end = without(image.sessions_to_end, session)
  if image.checkout_session and not image.checkout_ended then table.insert(to_end, image.checkout_session) end
  redis.call('HSET', KEYS[1], 'checkout_session', session, 'sessions_to_end', table.concat(to_end, ' '))
  redis.call('HDEL', KEYS[1], 'checkout_ended')
end
if is_complete then redis.call('HSET', KEYS[1], 'checkout_complete', 1) end
set_expiry(look())
return cjson.encode(image)
"""

NOTE_ENDED = f"""{_LOOK_CURRENT}{_WITHOUT}
local session = ARGV[2]
local to_end = without(image.sessions_to_end, session)
redis.call('HSET', KEYS[1], 'sessions_to_end', table.concat(to_end, ' '))
if session == image.checkout_session then redis.call('HSET', KEYS[1], 'checkout_ended', 1) end
return cjson.encode(image)
"""

# The one caller whose answer shows an `expires` that has come has removed the picture.
REMOVE_EXPIRED = f"""{_LOOK}
if tonumber(image.expires) <= now then redis.call('UNLINK', KEYS[1]) end
return cjson.encode(image)
"""
