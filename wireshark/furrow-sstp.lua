-- A Wireshark dissector for SSTP as Furrow speaks it: the 18 commands of versions 1.5 and 1.6, the tokens of SSTP Security
-- (profiles legacy and modern), WAN DPP, and the HTTP carriers LongLived, KeepAlive and Polling. README.md beside this file
-- says how to install and use it; PROTOCOL.md at the top of the repository explains what it shows.
--
-- It decodes and never judges a relay's decisions: what it calls malformed is what a relay refuses, what it calls odd
-- (a count above what is outstanding, a session that nobody opened) may be the fault of a capture that began too late.
-- It is one file, since a plugin is copied as one.

set_plugin_info({ version = "0.1.0", author = "The Furrow authors", description = "SSTP, the relay protocol of Groove" })

local sstp = Proto("gsstp", "Simple Symmetric Transport Protocol (Groove)")
local sec = Proto("gsstps", "SSTP Security")
local dpp = Proto("wandpp", "WAN Device Presence Protocol")
local henc = Proto("ghenc", "HTTP Encapsulation of SSTP")

-- Numbers --------------------------------------------------------------------------------------------------------------

local COMMANDS = {
    [0x01] = "Connect", [0x02] = "ConnectResponse", [0x03] = "ConnectAuthenticate", [0x04] = "ConnectClose",
    [0x05] = "Open", [0x06] = "FanoutOpen", [0x07] = "OpenResponse", [0x08] = "Attach", [0x09] = "AttachResponse",
    [0x0a] = "AttachAuthenticate", [0x0b] = "Register", [0x0c] = "RegisterResponse", [0x0d] = "Message",
    [0x0e] = "Data", [0x0f] = "EndMessage", [0x10] = "Noop", [0x11] = "Close", [0x12] = "SessionStatus",
}
-- The shortest and the longest CommandLength.
local LENGTHS = {
    [0x01] = { 13, 2055 }, [0x02] = { 12, 2055 }, [0x03] = { 5, 2055 }, [0x04] = { 12, 12 }, [0x05] = { 14, 2055 },
    [0x06] = { 14, 65535 }, [0x07] = { 8, 8 }, [0x08] = { 12, 2055 }, [0x09] = { 9, 2055 }, [0x0a] = { 9, 2055 },
    [0x0b] = { 12, 8192 }, [0x0c] = { 9, 2055 }, [0x0d] = { 13, 2055 }, [0x0e] = { 8, 2055 }, [0x0f] = { 7, 7 },
    [0x10] = { 7, 7 }, [0x11] = { 8, 8 }, [0x12] = { 11, 65535 },
}
local CONNECT_RESPONSES = {
    [0] = "Ok", [1] = "WrongDevice", [2] = "TryLater", [3] = "WillUpgrade", [4] = "WontUpgrade",
    [5] = "NewVersionRequired", [6] = "AuthenticationFailed", [9] = "ConnectRejected",
}
local REASONS = {
    [0] = "NoReason", [1] = "Resting", [2] = "Idle", [3] = "ProtocolError", [4] = "DeviceAuthenticationFailed",
    [5] = "UserAuthenticationFailed", [7] = "StaleAttachAuthenticate", [0x0b] = "QuotaWouldBeExceeded",
    [0x0c] = "CrossedConnections", [0x0d] = "InternalError", [0x0f] = "TooManyUnknownSessionCmds",
    [0x15] = "EmptySession",
}
local OPEN_RESPONSES = {
    [0] = "Ok", [4] = "NoResource", [5] = "Unknown", [8] = "NoFanoutEntries", [0x0b] = "OkStopSending",
    [0x0c] = "FanoutNotSupported",
}
local STATUSES = {
    [1] = "DNSLookupFailed", [2] = "HostNotReachable", [3] = "ConnectionClosed", [4] = "QuotaWouldBeExceeded",
    [5] = "LockedOut",
}
local SECURITY = {
    [1] = "SecConnect", [2] = "SecConnectResponse", [3] = "SecConnectResponseDeviceRegistrationNeeded",
    [4] = "SecConnectResponseAuthenticationFailed", [5] = "SecConnectAuthenticate", [6] = "SecAttach",
    [7] = "SecAttachResponse", [8] = "SecAttachResponseAccountRegistrationNeeded",
    [9] = "SecAttachResponseAuthenticationFailed", [10] = "SecAttachAuthenticate", [12] = "SecDeviceAccountRegister",
    [13] = "SecDeviceAccountRegisterResponse", [14] = "SecAccountRegister", [15] = "SecAccountOnNewDeviceRegister",
    [16] = "SecIdentityRegister", [17] = "SecIdentityRegisterResponse",
}
local REGISTER_STATUSES = {
    [0] = "Ok", [1] = "PreAuthenticationFailed", [2] = "SignatureInvalid", [3] = "KeyUndecryptable",
    [4] = "AlreadyRegistered", [5] = "UnknownAccount", [6] = "NotPermitted", [7] = "Busy",
}
local PROFILES = { [1] = "legacy", [2] = "modern" }
local DPP_MESSAGES = { [1] = "Publish", [2] = "Subscribe", [3] = "Unsubscribe", [4] = "Notify" }
local DPP_STATUSES = { [0] = "unknown", [1] = "online", [2] = "offline", [3] = "away" }
local WAN_DPP = "grooveWanDPP"
local ECHO = "GroovePing: 1.0,Ping\r\n"
local MAX_HEAD, MAX_BODY = 8192, 32768

-- Fields ---------------------------------------------------------------------------------------------------------------

local F = {
    command = ProtoField.uint8("gsstp.command", "CommandId", base.HEX, COMMANDS),
    length = ProtoField.uint16("gsstp.length", "CommandLength"),
    major = ProtoField.uint8("gsstp.major", "MajorVersionNumber"),
    minor = ProtoField.uint8("gsstp.minor", "MinorVersionNumber"),
    reserved = ProtoField.bytes("gsstp.reserved", "Reserved"),
    target = ProtoField.string("gsstp.target_device", "TargetDeviceURL"),
    sources = ProtoField.uint8("gsstp.source_devices", "NumSourceDeviceURLs"),
    source = ProtoField.string("gsstp.source_device", "SourceDeviceURL"),
    token_length = ProtoField.uint16("gsstp.token_length", "AuthenticationTokenLength"),
    token = ProtoField.bytes("gsstp.token", "AuthenticationToken"),
    product = ProtoField.string("gsstp.product", "PeerProductVersion"),
    capabilities = ProtoField.string("gsstp.capabilities", "PeerProductCapabilities"),
    connect_response = ProtoField.uint8("gsstp.connect_response", "ResponseId", base.HEX, CONNECT_RESPONSES),
    retry_time = ProtoField.uint32("gsstp.retry_time", "RetryTime (seconds)"),
    reason = ProtoField.uint8("gsstp.reason", "ReasonId", base.HEX, REASONS),
    message_count = ProtoField.uint32("gsstp.message_count", "MessageCount"),
    return_time = ProtoField.uint32("gsstp.return_time", "ReturnTime (seconds)"),
    session = ProtoField.uint32("gsstp.session", "SessionId", base.HEX_DEC),
    event = ProtoField.uint32("gsstp.event", "EventId", base.HEX_DEC),
    resource = ProtoField.string("gsstp.resource", "ResourceURL"),
    identity = ProtoField.string("gsstp.identity", "IdentityURL"),
    device = ProtoField.string("gsstp.device", "DeviceURL"),
    account = ProtoField.string("gsstp.account", "AccountURL"),
    relay = ProtoField.string("gsstp.relay", "RelayURL"),
    failover = ProtoField.string("gsstp.failover", "FailoverDeviceURLs"),
    open_flags = ProtoField.uint8("gsstp.open_flags", "Flags", base.HEX),
    entries = ProtoField.uint16("gsstp.entries", "NumFanoutDeviceEntries"),
    entry = ProtoField.bytes("gsstp.entry", "FanoutDeviceEntry"),
    open_response = ProtoField.uint8("gsstp.open_response", "ResponseId", base.HEX, OPEN_RESPONSES),
    status = ProtoField.uint8("gsstp.status", "StatusId", base.HEX, STATUSES),
    indexes = ProtoField.uint16("gsstp.indexes", "NumFanoutDeviceIndexes"),
    index = ProtoField.uint16("gsstp.index", "FanoutDeviceIndex"),
    flags = ProtoField.uint8("gsstp.flags", "Flags", base.HEX),
    flag_r1 = ProtoField.bool("gsstp.flags.r1", "Reserved", 8, nil, 0x80),
    flag_f = ProtoField.bool("gsstp.flags.fragmentation", "Fragmentation Fields (F)", 8, nil, 0x40),
    flag_g = ProtoField.bool("gsstp.flags.report", "Follow and report (G)", 8, nil, 0x20),
    flag_s = ProtoField.bool("gsstp.flags.stream_size", "StreamSize Fields (S)", 8, nil, 0x10),
    flag_r2 = ProtoField.bool("gsstp.flags.r2", "Reserved", 8, nil, 0x08),
    flag_a = ProtoField.bool("gsstp.flags.acknowledge", "AcknowledgeImmediately (A)", 8, nil, 0x04),
    flag_e = ProtoField.bool("gsstp.flags.ephemeral", "Ephemeral Fields (E)", 8, nil, 0x02),
    flag_d = ProtoField.bool("gsstp.flags.online_only", "DoNotDeliverIfOffline (D)", 8, nil, 0x01),
    user_ref = ProtoField.string("gsstp.user_ref", "UserRef"),
    lifetime = ProtoField.uint32("gsstp.lifetime", "Lifetime (seconds)"),
    stream_size = ProtoField.bytes("gsstp.stream_size", "StreamSize Fields"),
    fragmentation = ProtoField.bytes("gsstp.fragmentation", "Fragmentation Fields"),
    payload = ProtoField.bytes("gsstp.payload", "Payload"),
    -- What follows stands in no byte; it is worked out from the commands before.
    version = ProtoField.string("gsstp.version", "Version of the connection"),
    opened_in = ProtoField.framenum("gsstp.opened_in", "Session opened in"),
    body_length = ProtoField.uint64("gsstp.body_length", "Length of the message's body"),
    body_pieces = ProtoField.uint32("gsstp.body_pieces", "Data commands of the message"),
    acknowledges = ProtoField.framenum("gsstp.acknowledges", "Acknowledges, last of all, the message that ended in", base.NONE, frametype.ACK),
    ack_time = ProtoField.double("gsstp.ack_time", "Time from that EndMessage to this acknowledgement (seconds)"),
    rest = ProtoField.bytes("gsstp.rest", "Bytes that are no command"),
}
sstp.fields = F

local S = {
    major = ProtoField.uint8("gsstps.major", "Major version", base.DEC, PROFILES),
    minor = ProtoField.uint8("gsstps.minor", "Minor version"),
    message = ProtoField.uint8("gsstps.message", "MessageID", base.DEC, SECURITY),
    status = ProtoField.uint8("gsstps.status", "Status", base.DEC, REGISTER_STATUSES),
    iv = ProtoField.bytes("gsstps.iv", "IV"),
    mac = ProtoField.bytes("gsstps.mac", "MAC"),
    nonce = ProtoField.bytes("gsstps.nonce", "Nonce"),
    device_nonce = ProtoField.bytes("gsstps.device_nonce", "DeviceNonce"),
    account_nonce = ProtoField.bytes("gsstps.account_nonce", "AccountNonce"),
    relay_nonce = ProtoField.bytes("gsstps.relay_nonce", "RelayNonce"),
    encrypted_nonce = ProtoField.bytes("gsstps.encrypted_nonce", "Encrypted nonce"),
    sealed_key = ProtoField.bytes("gsstps.sealed_key", "Secret key, sealed to the relay"),
    public_keys = ProtoField.bytes("gsstps.public_keys", "Public keys"),
    algorithm = ProtoField.string("gsstps.algorithm", "Algorithm"),
    public_key = ProtoField.bytes("gsstps.public_key", "Public key"),
    signature_key = ProtoField.bytes("gsstps.signature_key", "Signature key (Ed25519)"),
    account_message = ProtoField.bytes("gsstps.account_message", "AccountMessage"),
    signature = ProtoField.bytes("gsstps.signature", "Signature"),
    pre_auth = ProtoField.bytes("gsstps.pre_auth_token", "UserPreAuthToken"),
    identity = ProtoField.string("gsstps.identity", "IdentityURL"),
}
sec.fields = S

local D = {
    major = ProtoField.uint8("wandpp.major", "Major version"),
    minor = ProtoField.uint8("wandpp.minor", "Minor version"),
    message = ProtoField.uint8("wandpp.message", "MessageId", base.DEC, DPP_MESSAGES),
    reserved = ProtoField.uint8("wandpp.reserved", "Reserved"),
    length = ProtoField.uint32("wandpp.length", "Length of the message"),
    status = ProtoField.uint8("wandpp.status", "Status", base.DEC, DPP_STATUSES),
    count = ProtoField.uint16("wandpp.devices", "Devices"),
    device = ProtoField.string("wandpp.device", "DeviceURL"),
}
dpp.fields = D

local H = {
    line = ProtoField.string("ghenc.start_line", "Start line"),
    header = ProtoField.string("ghenc.header", "Header"),
    carrier = ProtoField.string("ghenc.carrier", "Carrier"),
    guid = ProtoField.string("ghenc.guid", "Virtual-Connection-GUID"),
    server = ProtoField.string("ghenc.server", "Relay-Server-Name"),
    length = ProtoField.uint64("ghenc.content_length", "Content-Length"),
    echo = ProtoField.string("ghenc.echo", "Encapsulation-Echo-String"),
    version = ProtoField.string("ghenc.version", "Encapsulation version"),
    sequence = ProtoField.uint32("ghenc.sequence", "Sequence-Number"),
    checksum = ProtoField.uint32("ghenc.checksum", "Checksum"),
    min = ProtoField.uint32("ghenc.poll_min", "Minimum poll interval (seconds)"),
    max = ProtoField.uint32("ghenc.poll_max", "Maximum poll interval (seconds)"),
    repetitions = ProtoField.uint32("ghenc.poll_repetitions", "Poll repetitions"),
    data = ProtoField.bytes("ghenc.data", "Application-Data"),
}
henc.fields = H

local function expert_info(name, text, group, severity)
    return ProtoExpert.new(name, text, group, severity)
end
local MALFORMED, PROTOCOL, SEQUENCE = expert.group.MALFORMED, expert.group.PROTOCOL, expert.group.SEQUENCE
local ERROR, WARN, NOTE = expert.severity.ERROR, expert.severity.WARN, expert.severity.NOTE
local E = {
    malformed = expert_info("gsstp.malformed", "A relay answers this with ProtocolError", MALFORMED, ERROR),
    not_a_command = expert_info("gsstp.not_a_command", "Not the beginning of a command", MALFORMED, ERROR),
    short_capture = expert_info("gsstp.short_capture", "The capture does not have the whole packet", PROTOCOL, NOTE),
    unknown_code = expert_info("gsstp.unknown_code", "A number that the tables do not list", PROTOCOL, NOTE),
    refused = expert_info("gsstp.refused", "The other side was refused", expert.group.RESPONSE_CODE, NOTE),
    unknown_session = expert_info("gsstp.unknown_session", "No Open of this session was seen", SEQUENCE, WARN),
    closed_session = expert_info("gsstp.closed_session", "The session was closed before", SEQUENCE, NOTE),
    over_count = expert_info("gsstp.over_count", "More messages are acknowledged than were outstanding", SEQUENCE, WARN),
    early_data = expert_info("gsstp.no_message", "No Message began this", SEQUENCE, WARN),
}
sstp.experts = E
local SE = { malformed = expert_info("gsstps.malformed", "The token cannot be read", MALFORMED, ERROR) }
sec.experts = SE
local DE = { malformed = expert_info("wandpp.malformed", "A relay closes the session for this", MALFORMED, ERROR) }
dpp.experts = DE
local HE = {
    malformed = expert_info("ghenc.malformed", "A relay answers this with 400", MALFORMED, ERROR),
    checksum = expert_info("ghenc.checksum_wrong", "The checksum is another one", expert.group.CHECKSUM, ERROR),
    repeated = expert_info("ghenc.repeated", "A repeated poll: its data came before", SEQUENCE, NOTE),
}
henc.experts = HE

sstp.prefs.ports = Pref.range("SSTP ports", "2492,443", "TCP ports with SSTP as it is (TLS on them is left to the TLS dissector)", 65535)
sstp.prefs.tls_ports = Pref.range("SSTP over TLS ports", "2493", "Ports with SSTP inside TLS; needs the session keys", 65535)
henc.prefs.ports = Pref.range("HTTP ports", "80", "TCP ports with the HTTP carriers (other HTTP on them is left to the HTTP dissector)", 65535)

-- State ----------------------------------------------------------------------------------------------------------------
-- What a packet says depends on those before it. All that is so is worked out when a packet is seen first, kept under a key of
-- that packet, and read from there when it is looked at again, in whatever order.

local tcp_stream = Field.new("tcp.stream")
local connections, streams, notes

function sstp.init()
    connections, streams, notes = {}, {}, {}
end

local function note_of(pinfo, tvb, offset)
    local key = string.format("%d:%d:%d:%d", pinfo.number, tvb:offset(), tvb:len(), offset)
    local note = notes[key]
    if not note then
        note = { fresh = true }
        notes[key] = note
    else
        note.fresh = false
    end
    return note
end

-- One SSTP connection: on a TCP stream or a virtual one. `whole` is set once its Connect was seen.
local function connection(key)
    local found = connections[key]
    if not found then
        found = { key = key, sessions = {}, outstanding = {}, left = {}, whole = false }
        connections[key] = found
    end
    return found
end

-- The messages that `side` sent and that are not acknowledged yet, oldest first.
local function outstanding(conn, side)
    local queue = conn.outstanding[side]
    if not queue then
        queue = { first = 1, last = 0 }
        conn.outstanding[side] = queue
    end
    return queue
end

local function ended(conn, side, pinfo)
    local queue = outstanding(conn, side)
    queue.last = queue.last + 1
    queue[queue.last] = { frame = pinfo.number, time = pinfo.rel_ts }
end

-- `count` messages of the other side are acknowledged: what is remembered of the last one.
local function acknowledged(note, conn, other, count, pinfo)
    local queue = outstanding(conn, other)
    local there = queue.last - queue.first + 1
    note.over = conn.whole and count > there
    local last
    for _ = 1, math.min(count, there) do
        last = queue[queue.first]
        queue[queue.first] = nil
        queue.first = queue.first + 1
    end
    if last then
        note.acknowledges, note.ack_time = last.frame, pinfo.rel_ts - last.time
    end
end

-- Reading --------------------------------------------------------------------------------------------------------------
-- A cursor over the fields of one command or token. Whatever is wrong ends the reading by an error with a text of our own.

local Cursor = {}
Cursor.__index = Cursor

local function cursor(range, tree)
    return setmetatable({ range = range, at = 0, size = range:len(), tree = tree }, Cursor)
end

local function refuse(text) error({ malformed = text }, 0) end

function Cursor:left() return self.size - self.at end

function Cursor:need(bytes, name)
    if self:left() < bytes then refuse("it ends inside " .. name) end
end

function Cursor:take(bytes, name)
    self:need(bytes, name)
    local at = self.at
    self.at = at + bytes
    return self.range:range(at, bytes)
end

function Cursor:number(field, bytes, name)
    local range = self:take(bytes, name)
    return range:le_uint(), self.tree:add_le(field, range)
end

function Cursor:code(field, names, name)
    local value, item = self:number(field, 1, name)
    if not names[value] then item:add_proto_expert_info(E.unknown_code) end
    return value, item
end

function Cursor:text(field, name, required)
    local left = self:left()
    local zero = left > 0 and self.range:range(self.at, left):raw():find("\0", 1, true)
    if not zero then refuse("it ends inside " .. name) end
    local range = self:take(zero, name)
    local value = range:raw(0, zero - 1)
    if value:find("[\128-\255]") then refuse(name .. " is not ASCII") end
    local item = self.tree:add(field, range, value)
    if required and value == "" then refuse(name .. " is empty") end
    return value, item
end

function Cursor:zero(field, bytes)
    local range = self:take(bytes, "a reserved field")
    self.tree:add(field, range)
    if range:raw() ~= string.rep("\0", bytes) then refuse("a reserved field is not zero") end
end

function Cursor:session(field)
    local value = self:number(field, 4, "SessionId")
    if value == 0 then refuse("session 0 is never used") end
    return value
end

function Cursor:done()
    if self:left() > 0 then refuse(self:left() .. " bytes behind the last field") end
end

-- Runs `read`; a refusal becomes expert information, and anything else is a defect of this file.
local function reading(read, item, info)
    local well, problem = pcall(read)
    if well then return true end
    if type(problem) ~= "table" or not problem.malformed then error(problem, 0) end
    item:add_proto_expert_info(info, "Malformed: " .. problem.malformed)
    return false
end

-- SSTP Security --------------------------------------------------------------------------------------------------------

local CLAIM = { S.iv, S.mac, S.encrypted_nonce }
local TOKENS = {
    [1] = {
        [1] = CLAIM, [2] = { S.iv, S.mac, S.device_nonce, S.encrypted_nonce }, [5] = { S.mac, S.relay_nonce }, [6] = CLAIM,
        [7] = { S.iv, S.mac, S.account_nonce, S.encrypted_nonce }, [10] = { S.mac, S.relay_nonce },
        [12] = { S.sealed_key, S.public_keys, S.account_message, S.signature },
        [14] = { S.pre_auth, S.sealed_key, S.public_keys, S.signature }, [15] = CLAIM,
        [16] = { S.identity, S.pre_auth, S.mac },
    },
    [2] = {
        [1] = { S.nonce, S.mac }, [2] = { S.relay_nonce, S.mac }, [5] = { S.mac }, [6] = { S.nonce, S.mac },
        [7] = { S.relay_nonce, S.mac }, [10] = { S.mac },
        [12] = { S.sealed_key, S.signature_key, S.account_message, S.signature },
        [14] = { S.pre_auth, S.sealed_key, S.signature_key, S.signature }, [15] = { S.nonce, S.mac },
        [16] = { S.identity, S.pre_auth, S.mac },
    },
}
-- What is shown of a field without bytes, which has no value to filter by.
local EMPTY = {}
for name, field in pairs(S) do EMPTY[field] = "empty: " .. name end
local MINORS = { [1] = { [3] = true, [4] = true }, [2] = { [0] = true } }

-- The six fields of a legacy public keys object.
local function public_keys(c)
    for _, field in ipairs({ S.algorithm, S.algorithm, S.public_key, S.algorithm, S.algorithm, S.public_key }) do
        local count = c:take(2, "a count"):le_uint()
        c.tree:add(field, c:take(count, "a public key"))
    end
    c:done()
end

-- A token; gives the name of its message for the summary.
local function security_token(range, tree)
    local item = tree:add(sec, range)
    local c = cursor(range, item)
    local name = "token"
    reading(function()
        local major = c:number(S.major, 1, "the header")
        local minor = c:number(S.minor, 1, "the header")
        local id = c:number(S.message, 1, "the header")
        name = SECURITY[id] or name
        item:append_text(": " .. name .. ", " .. (PROFILES[major] or "unknown profile"))
        if not TOKENS[major] then refuse("major version " .. major .. " is unknown") end
        if not MINORS[major][minor] then refuse("minor version " .. minor .. " is unknown") end
        if not SECURITY[id] then refuse("message " .. id .. " is unknown") end
        if id == 13 or id == 17 then
            local status = c:number(S.status, 1, "Status")
            name = name .. " " .. (REGISTER_STATUSES[status] or status)
            item:append_text(", " .. (REGISTER_STATUSES[status] or status))
        end
        for _, field in ipairs(TOKENS[major][id] or {}) do
            local count = c:take(2, "a count"):le_uint()
            c:need(count, "a field")
            if count > 0 then
                local value = c:take(count, "a field")
                local added = item:add(field, value)
                if field == S.account_message then
                    security_token(value, added)
                elseif field == S.public_keys then
                    reading(function() public_keys(cursor(value, added)) end, added, SE.malformed)
                end
            else
                item:add(c.range:range(c.at - 2, 2), EMPTY[field])
            end
        end
        c:done()
    end, item, SE.malformed)
    return name
end

-- WAN DPP --------------------------------------------------------------------------------------------------------------

local function dpp_message(c, item)
    local major, minor = c:number(D.major, 1, "the header"), c:number(D.minor, 1, "the header")
    if major ~= 1 or minor ~= 0 then refuse("version " .. major .. "." .. minor) end
    local id = c:number(D.message, 1, "the header")
    local name = DPP_MESSAGES[id] or refuse("MessageId " .. id)
    if c:number(D.reserved, 1, "the header") ~= 0 then refuse("the reserved byte is not zero") end
    local length = c:number(D.length, 4, "the header")
    if length < 8 then refuse("a length of " .. length) end
    c:need(length - 8, "its devices")
    local inner = cursor(c.range:range(c.at, length - 8), c.tree)
    if length == 8 then refuse("no count of devices") end
    local status = id == 1 and inner:number(D.status, 1, "Status")
    if status and not DPP_STATUSES[status] then refuse("status " .. status) end
    local count = inner:number(D.count, 2, "the count")
    if id == 2 and count == 0 then refuse("a Subscribe of nothing") end
    for _ = 1, count do
        local of = id == 4 and inner:number(D.status, 1, "Status")
        if of and not DPP_STATUSES[of] then refuse("status " .. of) end
        local _, device = inner:text(D.device, "DeviceURL", true)
        if of then device:append_text(" is " .. DPP_STATUSES[of]) end
    end
    inner:done()
    c.at = c.at + length - 8
    item:append_text(string.format(": %s%s, %d devices", name, status and " " .. DPP_STATUSES[status] or "", count))
    return name
end

function dpp.dissector(tvb, pinfo, tree)
    local names, at = {}, 0
    while at < tvb:len() do
        local item = tree:add(dpp, tvb(at))
        local c = cursor(tvb:range(at), item)
        if not reading(function() names[#names + 1] = dpp_message(c, item) end, item, DE.malformed) then break end
        item:set_len(c.at)
        at = at + c.at
    end
    return table.concat(names, " and ")
end

-- SSTP: one function for each layout -----------------------------------------------------------------------------------
-- Each reads the fields behind the prefix, leaves what others need to know in `seen`, and gives a word for the summary.

local function token_field(c)
    local length = c:number(F.token_length, 2, "AuthenticationTokenLength")
    c:need(length, "AuthenticationToken")
    if length == 0 then return "no token" end
    local range = c:take(length, "AuthenticationToken")
    return security_token(range, c.tree:add(F.token, range))
end

local function open_flags(c)
    local flags = c:number(F.open_flags, 1, "Flags")
    if flags > 1 then refuse("a reserved bit is not zero") end
end

local function entry(c, version)
    local whole = c.tree
    local start = c.at
    local item = whole:add(F.entry, c.range:range(start))
    c.tree = item
    local identity = c:text(F.identity, "IdentityURL")
    c:text(F.device, "DeviceURL")
    c:text(F.relay, "RelayURL")
    if version == 6 and c:text(F.failover, "FailoverDeviceURLs") ~= "" then refuse("FailoverDeviceURLs is not empty") end
    item:set_len(c.at - start)
    item:set_text("FanoutDeviceEntry: " .. identity)
    c.tree = whole
end

-- Whether `count` entries of `version` end two bytes before the end: for captures that have no Connect.
local function entries_fit(bytes, count, version)
    local at = 1
    for _ = 1, count * (version == 6 and 4 or 3) do
        local zero = bytes:find("\0", at, true)
        if not zero then return false end
        at = zero + 1
    end
    return at == #bytes - 1
end

local function account_request(c, seen)
    seen.session, seen.event = c:session(F.event), true
    c:text(F.resource, "ResourceURL")
    c:text(F.account, "AccountURL", true)
    return token_field(c)
end

local function event_token(c, seen)
    seen.session, seen.event = c:session(F.event), true
    return token_field(c)
end

local READ = {
    [0x01] = function(c, seen)
        local major = c:number(F.major, 1, "MajorVersionNumber")
        if major ~= 1 then refuse("major version " .. major .. "; a relay answers WillUpgrade or NewVersionRequired") end
        seen.minor = c:number(F.minor, 1, "MinorVersionNumber")
        c:zero(F.reserved, 1)
        c:text(F.target, "TargetDeviceURL")
        local count = c:number(F.sources, 1, "NumSourceDeviceURLs")
        if count == 0 then refuse("no SourceDeviceURL") end
        for _ = 1, count do c:text(F.source, "SourceDeviceURL") end
        local token = token_field(c)
        c:text(F.product, "PeerProductVersion")
        c:text(F.capabilities, "PeerProductCapabilities")
        return "1." .. seen.minor .. " " .. token
    end,
    [0x02] = function(c, seen)
        local major = c:number(F.major, 1, "MajorVersionNumber")
        if major ~= 1 then refuse("major version " .. major) end
        seen.minor = c:number(F.minor, 1, "MinorVersionNumber")
        local response, item = c:code(F.connect_response, CONNECT_RESPONSES, "ResponseId")
        if response ~= 0 then item:add_proto_expert_info(E.refused) end
        c:number(F.retry_time, 4, "RetryTime")
        return (CONNECT_RESPONSES[response] or response) .. " " .. token_field(c)
    end,
    [0x03] = function(c) return token_field(c) end,
    [0x04] = function(c, seen)
        local reason = c:code(F.reason, REASONS, "ReasonId")
        seen.count = c:number(F.message_count, 4, "MessageCount")
        local back = c:number(F.return_time, 4, "ReturnTime")
        return (REASONS[reason] or reason) .. (back > 0 and " return in " .. back .. " s" or "")
    end,
    [0x05] = function(c, seen)
        seen.session = c:session(F.session)
        seen.opens = c:text(F.resource, "ResourceURL", true)
        c:text(F.identity, "IdentityURL")
        c:text(F.device, "DeviceURL")
        open_flags(c)
        c:zero(F.reserved, 2)
        return seen.opens
    end,
    [0x06] = function(c, seen)
        seen.session = c:session(F.session)
        seen.opens = c:text(F.resource, "ResourceURL", true)
        open_flags(c)
        local count = c:number(F.entries, 2, "NumFanoutDeviceEntries")
        local version = seen.version
        if not version then
            c:need(2, "Reserved")
            version = entries_fit(c.range:range(c.at):raw(), count, 6) and 6 or 5
        end
        for _ = 1, count do
            c:need(1, "FanoutDeviceEntries")
            entry(c, version)
        end
        c:zero(F.reserved, 2)
        return seen.opens .. " to " .. count
    end,
    [0x07] = function(c, seen)
        seen.session = c:session(F.session)
        local response, item = c:code(F.open_response, OPEN_RESPONSES, "ResponseId")
        if response ~= 0 and response ~= 0x0b then item:add_proto_expert_info(E.refused) end
        return OPEN_RESPONSES[response] or response
    end,
    [0x08] = account_request,
    [0x09] = event_token,
    [0x0a] = event_token,
    [0x0b] = account_request,
    [0x0c] = event_token,
    [0x0d] = function(c, seen)
        seen.session, seen.begins = c:session(F.session), true
        seen.count = c:number(F.message_count, 4, "MessageCount")
        local range = c:take(1, "Flags")
        local flags, bits = range:uint(), c.tree:add(F.flags, range)
        for _, bit in ipairs({ F.flag_r1, F.flag_f, F.flag_g, F.flag_s, F.flag_r2, F.flag_a, F.flag_e, F.flag_d }) do
            bits:add(bit, range)
        end
        local function set(mask) return flags % (2 * mask) >= mask end
        if set(0x80) or set(0x08) then refuse("a reserved bit is not zero") end
        c:text(F.user_ref, "UserRef")
        if set(0x02) then c:number(F.lifetime, 4, "Ephemeral Fields") end
        if set(0x10) then c.tree:add(F.stream_size, c:take(24, "StreamSize Fields")) end
        if set(0x40) and c:left() > 0 then
            c.tree:add(F.fragmentation, c:take(c:left(), "Fragmentation Fields"))
        end
    end,
    [0x0e] = function(c, seen)
        seen.session = c:session(F.session)
        seen.payload = c:take(c:left(), "the payload")
        c.tree:add(F.payload, seen.payload)
    end,
    [0x0f] = function(c, seen) seen.session, seen.ends = c:session(F.session), true end,
    [0x10] = function(c, seen) seen.count = c:number(F.message_count, 4, "MessageCount") end,
    [0x11] = function(c, seen)
        seen.session, seen.closes = c:session(F.session), true
        local reason = c:code(F.reason, REASONS, "ReasonId")
        return REASONS[reason] or reason
    end,
    [0x12] = function(c, seen)
        seen.session = c:session(F.session)
        local status = c:code(F.status, STATUSES, "StatusId")
        c:zero(F.reserved, 1)
        c:text(F.device, "DeviceURL")
        c:text(F.identity, "IdentityURL")
        if c:left() > 0 and seen.version ~= 5 then
            for _ = 1, c:number(F.indexes, 2, "NumFanoutDeviceIndexes") do
                c:number(F.index, 2, "FanoutDeviceIndexes")
            end
        end
        return STATUSES[status] or status
    end,
}

-- What a command changes in its connection; once, when its packet is seen first. The rest of the session's life is in `note`.
local function follow(note, id, seen, conn, from, to, pinfo)
    if id == 0x01 then
        conn.whole, conn.offered = true, seen.minor
    elseif id == 0x02 and seen.minor then
        conn.version = math.min(seen.minor, 6)
    end
    if seen.count and seen.count > 0 then acknowledged(note, conn, to, seen.count, pinfo) end
    if not seen.session or seen.event then return end
    local session = conn.sessions[seen.session]
    if seen.opens then
        conn.sessions[seen.session] = { frame = pinfo.number, resource = seen.opens }
        return
    end
    if not session then
        -- A Close may be of an Attach or Register, whose events share the numbers.
        note.unknown = conn.whole and not seen.closes
        session = {}
        conn.sessions[seen.session] = session
    end
    note.opened_in, note.closed = session.frame, session.closed and not seen.closes
    if seen.begins then
        session.body = { length = 0, pieces = 0, parts = {} }
    elseif seen.payload then
        local body = session.body
        note.early = not body and conn.whole
        if body then
            body.length, body.pieces = body.length + seen.payload:len(), body.pieces + 1
            if session.resource == WAN_DPP then body.parts[body.pieces] = seen.payload:raw() end
        end
    elseif seen.ends then
        ended(conn, from, pinfo)
        local body = session.body
        note.early = not body and conn.whole
        if body then
            note.length, note.pieces = body.length, body.pieces
            if session.resource == WAN_DPP then note.presence = table.concat(body.parts) end
        end
        session.body = nil
    elseif seen.closes then
        session.closed = true
    end
end

-- Adds what is known of a command beyond its bytes; gives a word more for the summary.
local function explain(note, item, pinfo, tree)
    local function generated(field, value) item:add(field, value):set_generated() end
    if note.opened_in then generated(F.opened_in, note.opened_in) end
    if note.acknowledges then
        generated(F.acknowledges, note.acknowledges)
        generated(F.ack_time, note.ack_time)
    end
    if note.over then item:add_proto_expert_info(E.over_count) end
    if note.unknown then item:add_proto_expert_info(E.unknown_session) end
    if note.closed then item:add_proto_expert_info(E.closed_session) end
    if note.early then item:add_proto_expert_info(E.early_data) end
    if note.length then
        item:add(F.body_length, UInt64.new(note.length)):set_generated()
        generated(F.body_pieces, note.pieces)
    end
    if note.presence and note.presence ~= "" then
        return dpp.dissector(ByteArray.new(note.presence, true):tvb("WAN DPP"), pinfo, tree)
    elseif note.presence then
        item:add_proto_expert_info(DE.malformed, "Malformed: an empty body")
    end
end

-- One whole command at `offset`; gives what the summary says of it.
local function command(tvb, offset, length, pinfo, tree, conn, from, to)
    local id = tvb:range(offset, 1):uint()
    local name = COMMANDS[id]
    local item = tree:add(sstp, tvb:range(offset, length), "SSTP " .. name)
    item:add(F.command, tvb:range(offset, 1))
    item:add_le(F.length, tvb:range(offset + 1, 2))
    local note = note_of(pinfo, tvb, offset)
    local c = cursor(tvb:range(offset, length), item)
    c.at = 3
    if note.fresh then note.version = conn.version end
    local seen = { version = note.version }
    local word
    local well = reading(function()
        word = READ[id](c, seen)
        c:done()
    end, item, E.malformed)
    if note.fresh and well then follow(note, id, seen, conn, from, to, pinfo) end
    if note.version then item:add(F.version, "1." .. note.version):set_generated() end
    local presence = explain(note, item, pinfo, tree)
    local text = name
    if seen.session then text = text .. string.format(" %s#%X", seen.event and "event " or "", seen.session) end
    if word then text = text .. " " .. word end
    if presence then text = text .. " (" .. presence .. ")" end
    if seen.count and seen.count > 0 then text = text .. " acknowledges " .. seen.count end
    item:append_text(text:sub(#name + 1))
    if not well then text = text .. " [malformed]" end
    return name, text
end

-- Summaries: what is the same command again and again is counted.
local Summary = {}
Summary.__index = Summary
local function summary() return setmetatable({ words = {}, name = nil, run = 0 }, Summary) end

function Summary:add(name, text)
    if name == self.name and (name == "Data" or name == "EndMessage" or name == "Noop") then
        self.run = self.run + 1
        self.words[#self.words] = name .. " x" .. self.run
    else
        self.name, self.run = name, 1
        self.words[#self.words + 1] = text
    end
end

function Summary:say(pinfo)
    local most = 12
    if #self.words == 0 then return end
    local text = table.concat(self.words, ", ", 1, math.min(#self.words, most))
    if #self.words > most then text = text .. ", and " .. #self.words - most .. " more" end
    pinfo.cols.protocol = "SSTP"
    if pinfo.private.gsstp then
        pinfo.cols.info:append(", " .. text)
    else
        pinfo.cols.info:set(text)
        pinfo.private.gsstp = "said"
    end
    pinfo.cols.info:fence()
end

local function is_prefix(tvb, offset)
    local limits = LENGTHS[tvb:range(offset, 1):uint()]
    local length = tvb:range(offset + 1, 2):le_uint()
    return limits and length >= limits[1] and length <= limits[2] and length
end

-- All whole commands from `offset` on. Gives where the unfinished one begins and how many bytes it lacks (nil: not known).
local function commands(tvb, offset, pinfo, tree, conn, from, to, said)
    local size = tvb:len()
    while offset < size do
        if size - offset < 3 then return offset, nil end
        local length = is_prefix(tvb, offset)
        if not length then
            local item = tree:add(sstp, tvb:range(offset), "SSTP, not understood")
            item:add(F.rest, tvb:range(offset))
            item:add_proto_expert_info(E.not_a_command)
            said:add("?", "[not a command]")
            return size, nil
        end
        if size - offset < length then return offset, length - (size - offset) end
        said:add(command(tvb, offset, length, pinfo, tree, conn, from, to))
        offset = offset + length
    end
    return offset, nil
end

-- Asks TCP for more from `offset` on.
local function ask_for_more(tvb, pinfo, offset, lacking)
    pinfo.desegment_offset = offset
    pinfo.desegment_len = lacking or DESEGMENT_ONE_MORE_SEGMENT
    return tvb:len()
end

local function cut_short(tvb, tree, proto)
    if tvb:len() == tvb:reported_len() then return false end
    tree:add(proto, tvb()):add_proto_expert_info(E.short_capture)
    return true
end

local function side(address, port) return tostring(address) .. ":" .. port end

local function stream_state()
    local found = tcp_stream()
    local key = found and found.value or -1
    local state = streams[key]
    if not state then
        state = { key = key }
        streams[key] = state
    end
    return state
end

-- TCP (and TLS): SSTP as it is -----------------------------------------------------------------------------------------

local tls, http = Dissector.get("tls"), Dissector.get("http")

local function is_tls(tvb)
    local kind = tvb:range(0, 1):uint()
    return kind >= 0x14 and kind <= 0x17 and tvb:len() > 1 and tvb:range(1, 1):uint() == 3
end

function sstp.dissector(tvb, pinfo, tree)
    if tvb:len() == 0 then return 0 end
    local state = stream_state()
    if not state.kind then state.kind = is_tls(tvb) and "tls" or "sstp" end
    if state.kind == "tls" and is_tls(tvb) then return tls:call(tvb, pinfo, tree) end
    if cut_short(tvb, tree, sstp) then return tvb:len() end
    local said = summary()
    local from, to = side(pinfo.src, pinfo.src_port), side(pinfo.dst, pinfo.dst_port)
    local at, lacking = commands(tvb, 0, pinfo, tree, connection("tcp " .. state.key), from, to, said)
    said:say(pinfo)
    if at < tvb:len() then return ask_for_more(tvb, pinfo, at, lacking) end
    return tvb:len()
end

-- SSTP on any port is known by its Connect.
local function is_connect(tvb)
    if tvb:len() < 8 or tvb:range(0, 1):uint() ~= 1 or not is_prefix(tvb, 0) then return false end
    return tvb:range(3, 1):uint() == 1 and tvb:range(4, 1):uint() <= 16 and tvb:range(5, 1):uint() == 0
        and tvb:range(6, 1):uint() < 0x7f
end

sstp:register_heuristic("tcp", function(tvb, pinfo, tree)
    if not is_connect(tvb) then return false end
    pinfo.conversation = sstp
    sstp.dissector(tvb, pinfo, tree)
    return true
end)

-- HTTP -----------------------------------------------------------------------------------------------------------------

-- The head at `offset`: nil while it has no end, else its fields. `known` is the carrier of the stream so far.
local function read_head(tvb, offset)
    local text = tvb:range(offset, math.min(tvb:len() - offset, MAX_HEAD)):raw()
    local stop = text:find("\r\n\r\n", 1, true)
    if not stop then return nil end
    local head = { size = stop + 3, lines = {}, length = 0 }
    for line in text:sub(1, stop + 1):gmatch("([^\r\n]*)\r\n") do head.lines[#head.lines + 1] = line end
    for _, line in ipairs(head.lines) do
        local length = line:match("^[Cc]ontent%-[Ll]ength:%s*(%d+)")
        if length then head.length = tonumber(length) end
    end
    head.method, head.target = head.lines[1]:match("^(%u+) (.+) HTTP/")
    if head.target then
        local server, rest = head.target:match("/2%.0/([^/]+)/(.*)$")
        if rest then
            head.server, head.guid = server, rest:match("^%s*(%w+)")
            head.carrier = rest:match(",%s*ConnType=(%a+)")
        elseif head.method == "POST" and (head.target == "/" or head.target:match("^http://[^/]+/?$")) then
            head.maybe_polling = true
        end
    end
    return head
end

local function show_head(tvb, offset, head, carrier, guid, tree)
    local item = tree:add(henc, tvb:range(offset, head.size))
    item:append_text(": " .. carrier .. " " .. (head.method or "response"))
    local at = offset
    for number, line in ipairs(head.lines) do
        item:add(number == 1 and H.line or H.header, tvb:range(at, #line + 2), line)
        at = at + #line + 2
    end
    item:add(H.carrier, carrier):set_generated()
    if guid then item:add(H.guid, guid):set_generated() end
    if head.server then item:add(H.server, head.server):set_generated() end
    item:add(H.length, UInt64.new(head.length)):set_generated()
    return item
end

-- Application data of a body: an SSTP stream whose commands go on from body to body.
local function virtual_stream(range, pinfo, tree, conn, from, to, said)
    local tvb = range:tvb()
    local note = note_of(pinfo, tvb, -1)
    if note.fresh then note.before = conn.left[from] or "" end
    if note.before ~= "" then
        tvb = ByteArray.new(note.before .. range:raw(), true):tvb("SSTP, with what the body before left")
    end
    local at = commands(tvb, 0, pinfo, tree, conn, from, to, said)
    if note.fresh then conn.left[from] = at < tvb:len() and tvb:range(at):raw() or "" end
    if at < tvb:len() then
        tree:add(sstp, tvb:range(at), string.format("SSTP, %d bytes of a command that goes on in the next body", tvb:len() - at))
    end
end

-- The sum over the data, modulo 2^32; both readings of the specification count as right.
local function checksum_matches(sum, data)
    local whole = 0
    for place = 1, #data do
        local octet = data:byte(place)
        if octet > 127 then octet = octet - 256 end
        whole = (whole + (octet + 1) * place) % 4294967296
    end
    local first = #data > 0 and data:byte(1) or -1
    if first > 127 then first = first - 256 end
    return sum == whole or sum == (whole - (first + 1)) % 4294967296
end

local function nul_field(c, field, name)
    local left = c:left()
    local zero = left > 0 and c.range:range(c.at, left):raw():find("\0", 1, true)
    if not zero then refuse("it ends inside " .. name) end
    local range = c:take(zero, name)
    local text = range:raw(0, zero - 1)
    if field.number then
        local value = tonumber(text) or refuse(name .. " is not a number")
        value = value % 4294967296
        c.tree:add(field.number, range, value)
        return value
    end
    c.tree:add(field.text, range, text)
    return text
end

local function polling_body(range, head, pinfo, tree, said)
    local item = tree:add(henc, range, "Polling message")
    local c = cursor(range, item)
    local guid
    reading(function()
        local version = nul_field(c, { text = H.version }, "the version")
        if version ~= "1.2" then refuse("version " .. version) end
        nul_field(c, { text = H.server }, "the server's name")
        guid = nul_field(c, { text = H.guid }, "the GUID")
        local sequence = nul_field(c, { number = H.sequence }, "the sequence number")
        local sum = nul_field(c, { number = H.checksum }, "the checksum")
        if not head.method then
            nul_field(c, { number = H.min }, "an interval")
            nul_field(c, { number = H.max }, "an interval")
            nul_field(c, { number = H.repetitions }, "the repetitions")
        end
        item:set_len(c.at)
        item:append_text(" " .. sequence)
        if range:len() > MAX_BODY then refuse("a body above " .. MAX_BODY) end
        local data = c:left() > 0 and c:take(c:left(), "the data")
        if not checksum_matches(sum, data and data:raw() or "") then item:add_proto_expert_info(HE.checksum) end
        if not data then return end
        tree:add(H.data, data)
        local from, to = "client", "relay"
        if not head.method then from, to = to, from end
        local conn = connection("virtual " .. guid)
        local note = note_of(pinfo, range:tvb(), -2)
        if note.fresh then
            -- Both requests of the handshake have number 0, and only the second has data.
            conn.polls = conn.polls or {}
            local key = from .. sequence
            note.repeated = conn.polls[key]
            conn.polls[key] = true
        end
        if note.repeated then
            item:add_proto_expert_info(HE.repeated)
            said:add("poll", "repeated poll " .. sequence)
        else
            virtual_stream(data, pinfo, tree, conn, from, to, said)
        end
    end, item, HE.malformed)
end

local function entity(tvb, offset, head, carrier, guid, pinfo, tree, said)
    local range = tvb:range(offset, head.length)
    if carrier == "Polling" then return polling_body(range, head, pinfo, tree, said) end
    if range:raw() == ECHO then
        tree:add(henc, range, "Echo string"):add(H.echo, range, ECHO:sub(1, -3))
        said:add("echo", "echo")
        return
    end
    local item = tree:add(H.data, range)
    if head.length > MAX_BODY then item:add_proto_expert_info(HE.malformed, "Malformed: a body above " .. MAX_BODY) end
    local from, to = "client", "relay"
    if not head.method then from, to = to, from end
    virtual_stream(range, pinfo, tree, connection("virtual " .. guid), from, to, said)
end

-- The next thing on a stream of ours. Gives where it ends; or nil and how much is lacking.
local function http_thing(tvb, offset, state, pinfo, tree, said)
    local first = tvb:range(offset, 1):uint()
    local left = tvb:len() - offset
    if state.kind == "LongLived" and first <= 0x12 then
        local from_client = pinfo.dst_port == state.port
        local from, to = from_client and "client" or "relay", from_client and "relay" or "client"
        local at, lacking = commands(tvb, offset, pinfo, tree, connection("virtual " .. state.guid), from, to, said)
        if at == offset then return nil, lacking end
        return at
    end
    if state.kind == "LongLived" and first == 0x47 and left >= 4 and tvb:range(offset, 4):raw() == ECHO:sub(1, 4) then
        if left < #ECHO then return nil, #ECHO - left end
        local range = tvb:range(offset, #ECHO)
        tree:add(henc, range, "Echo string"):add(H.echo, range, ECHO:sub(1, -3))
        said:add("echo", "echo")
        return offset + #ECHO
    end
    local head = read_head(tvb, offset)
    if not head then
        if left < MAX_HEAD then return nil end
        tree:add(henc, tvb:range(offset)):add_proto_expert_info(HE.malformed, "Malformed: a head without an end")
        return tvb:len()
    end
    local note = note_of(pinfo, tvb, offset)
    if note.fresh then
        if head.carrier then state.kind, state.guid, state.port = head.carrier, head.guid, pinfo.dst_port end
        note.carrier, note.guid = state.kind, state.guid
    end
    local streamed = note.carrier == "LongLived" and (head.method or head.lines[1]:find(" 200", 1, true))
    if not streamed and left < head.size + head.length then return nil, head.size + head.length - left end
    said:add("head", note.carrier .. " " .. (head.method or head.lines[1]:match("^%S+ (%d+)") or "response"))
    show_head(tvb, offset, head, note.carrier, note.guid, tree)
    if streamed then return offset + head.size end
    if head.length > 0 then
        entity(tvb, offset + head.size, head, note.carrier, note.guid, pinfo, tree, said)
    end
    return offset + head.size + head.length
end

-- Which carrier begins here: its name, false for other HTTP, nil while that cannot be said.
local function which_carrier(tvb)
    local head = read_head(tvb, 0)
    if not head then return nil end
    if head.carrier == "LongLived" or head.carrier == "KeepAlive" then return head.carrier end
    if not head.maybe_polling then return false end
    if tvb:len() < head.size + 4 then
        if head.length < 4 then return false end
        return nil
    end
    return tvb:range(head.size, 4):raw() == "1.2\0" and "Polling"
end

function henc.dissector(tvb, pinfo, tree)
    if tvb:len() == 0 then return 0 end
    local state = stream_state()
    if not state.kind then
        local carrier = which_carrier(tvb)
        if carrier == nil and pinfo.can_desegment > 0 and tvb:range(0, 1):uint() < 0x80 then
            return ask_for_more(tvb, pinfo, 0)
        end
        state.kind, state.port = carrier or "http", pinfo.dst_port
    end
    if state.kind == "http" then return http:call(tvb, pinfo, tree) end
    if cut_short(tvb, tree, henc) then return tvb:len() end
    local said, offset = summary(), 0
    while offset < tvb:len() do
        local at, lacking = http_thing(tvb, offset, state, pinfo, tree, said)
        if not at then
            said:say(pinfo)
            return ask_for_more(tvb, pinfo, offset, lacking)
        end
        offset = at
    end
    said:say(pinfo)
    return tvb:len()
end

-- On any port a carrier is known by its first request, if that is whole in one segment.
henc:register_heuristic("tcp", function(tvb, pinfo, tree)
    local first = tvb:len() > 16 and tvb:range(0, 1):uint()
    if not first or (first ~= 0x47 and first ~= 0x50) or not which_carrier(tvb) then return false end
    pinfo.conversation = henc
    henc.dissector(tvb, pinfo, tree)
    return true
end)

-- Ports ----------------------------------------------------------------------------------------------------------------

local tcp_ports, tls_ports = DissectorTable.get("tcp.port"), DissectorTable.get("tls.port")
local registered = {}

-- Preferences may change while the program runs.
local function listen(table_, name, ports, proto)
    local before = registered[name]
    if before == ports then return end
    if before and before ~= "" then table_:remove(before, proto) end
    if ports ~= "" then table_:add(ports, proto) end
    registered[name] = ports
end

local function listen_to_all()
    listen(tcp_ports, "sstp", sstp.prefs.ports, sstp)
    listen(tls_ports, "tls", sstp.prefs.tls_ports, sstp)
    listen(tcp_ports, "http", henc.prefs.ports, henc)
end

sstp.prefs_changed = listen_to_all
henc.prefs_changed = listen_to_all
tcp_ports:add_for_decode_as(sstp)
tcp_ports:add_for_decode_as(henc)
listen_to_all()
