"""The scripts that change a picture in Redis. Redis runs one script at a time, so each script is atomic.

Every script gets the picture's key, the current time, and its own arguments. It returns the picture's fields as JSON.
PIN and NOTE return the fields after the change. All other scripts return the fields before the change. If there is no
such picture, a script does nothing and returns nothing. All scripts except REMOVE_EXPIRED treat an expired picture as
missing.
"""

from __future__ import annotations

from heroimg.stores.image import FIELD_NAMES, MAX_AHEAD_SECONDS

# Only a picture in Redis has the last field: the number of its blocks.
STORED_NAMES = (*FIELD_NAMES, "blocks")

# A picture with a complete checkout stays in Redis this long after it has expired, so that a sweep can report it.
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
  redis.call('EXPIRE', KEYS[1], image.expires - now + (image.checkout_complete and {_GRACE_SECONDS} or 0))
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

# If the clock was ahead when the picture was kept, move its times back (StoredImage.seconds_stored_ahead).
PIN = f"""{_LOOK_CURRENT}
local ahead = image.timestamp - now
local is_payable = image.sessions_to_end or image.checkout_session and not image.checkout_ended
if ahead > {MAX_AHEAD_SECONDS} and not is_payable and not image.checkout_complete then
  for _, name in ipairs({{'timestamp', 'expires', 'claim_until'}}) do
    if image[name] then redis.call('HSET', KEYS[1], name, image[name] - ahead) end
  end
  image = look()
end
local earliest, renewed = tonumber(ARGV[2]), tonumber(ARGV[3])
if tonumber(image.expires) < earliest then redis.call('HSET', KEYS[1], 'expires', math.max(earliest, renewed)) end
set_expiry(look())
return cjson.encode(look())
"""

# Compare and set. The arguments are the names of the fields, then their old values, then their new values. The fields
# may have the new values already, because the caller may run the script twice.
NOTE = f"""{_LOOK_CURRENT}
local count = (#ARGV - 1) / 3
local function has_values(first)
  for number = 1, count do
    if (image[ARGV[1 + number]] or '') ~= ARGV[first + number] then return false end
  end
  return true
end
local old, new = 1 + count, 1 + 2 * count
if has_values(old) or has_values(new) then
  for number = 1, count do
    local name, value = ARGV[1 + number], ARGV[new + number]
    if value == '' then redis.call('HDEL', KEYS[1], name) else redis.call('HSET', KEYS[1], name, value) end
  end
  set_expiry(look())
end
return cjson.encode(look())
"""

# If the returned `expires` has passed, this call has removed the picture.
REMOVE_EXPIRED = f"""{_LOOK}
if tonumber(image.expires) <= now then redis.call('UNLINK', KEYS[1]) end
return cjson.encode(image)
"""
