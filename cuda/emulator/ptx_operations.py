"""PTX instructions that touch memory, branch, or are done by several threads together, as C++.

As in ptx_arithmetic.py a handler returns a C++ statement; what it calls is in ptx_thread.hpp.
"""

import re

from ptx_arithmetic import base, handles, operands_as
from ptx_reader import TYPES, Variable, split_operands, width

CACHE_HINTS = {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "L1::evict_normal", "L1::evict_first",
               "L1::evict_last", "L1::evict_unchanged", "L1::no_allocate", "L2::64B", "L2::128B",
               "L2::256B"}
SCOPES = {"cta", "gpu", "sys", "cluster"}


# 9.7.9: data movement


@handles("mov")
def mov(body, m, o):
    kind = m.type(set(TYPES) - {"u8", "s8", "b8"})
    source, target = o[1], o[0]
    if source.startswith("{"):
        parts = body.vector(source)
        bits = 8 * width(kind) // len(parts)
        values = operands_as(body, parts, f"b{bits}")
        joined = " | ".join(f"static_cast<U{8 * width(kind)}>(static_cast<U{8 * width(kind)}>({v}) << {i * bits})"
                            for i, v in enumerate(values))
        return body.assign(target, f"b{8 * width(kind)}", f"static_cast<U{8 * width(kind)}>({joined})")
    if target.startswith("{"):
        parts = body.vector(target)
        bits = 8 * width(kind) // len(parts)
        value = body.value(source, f"b{8 * width(kind)}")
        writes = [body.assign(p, f"b{bits}", f"static_cast<U{bits}>(whole >> {i * bits})") for i, p in enumerate(parts)]
        return f"{{ const U{8 * width(kind)} whole = {value}; {' '.join(w for p, w in zip(parts, writes) if p != '_')} }}"
    return body.assign(target, kind, body.value(source, kind))


@handles("cvta")
def cvta(body, m, o):
    kind = m.type({"u64", "u32"})
    if kind != "u64":
        body.fail(m.opcode)
    to = m.take("to")
    space = m.need("global", "const", "local", "param", "shared", "shared::cta")
    if space.startswith("shared"):
        function = "shared_from_generic" if to else "generic_from_shared"
        return body.assign(o[0], kind, f"t.{function}({body.value(o[1], 'u64')})")
    return body.assign(o[0], kind, body.value(o[1], kind))


@handles("isspacep")
def isspacep(body, m, o):
    space = m.need("global", "const", "local", "shared", "shared::cta").replace("::cta", "")
    return body.assign(o[0], "pred", f"t.is_in(Space::{SPACES[space]}, {body.value(o[1], 'u64')})")


SPACES = {"global": "global", "shared": "shared", "local": "local", "const": "constant"}


def memory_modifiers(body, m):
    """Space and vector length. A synchronising access is checked like any other: Plumb has no spin waits."""
    m.take("relaxed", "acquire", "release")
    if m.take("volatile"):
        body.translator.volatile += 1
    m.take("weak")
    m.drop(SCOPES)
    m.drop(CACHE_HINTS)
    space = m.take(*SPACES, "shared::cta", "param", "param::entry", "param::func")
    space = (space or "generic").split("::")[0]
    count = {"v2": 2, "v4": 4, None: 1}[m.take("v2", "v4")]
    return space, count


@handles("ld", "ldu")
def load(body, m, o):
    kind = m.type(set(TYPES) - {"pred", "f16", "bf16"})
    space, count = memory_modifiers(body, m)
    targets = body.vector(o[0])
    if len(targets) != count:
        body.fail(f"{len(targets)} targets of {m.opcode}")
    c_type = TYPES[kind]
    if space == "param":
        source = parameter_bytes(body, o[1], count * width(kind))
        return " ".join(body.assign(r, kind, f"parameter<{c_type}>({source}, {i})") for i, r in enumerate(targets))
    call = f"t.load<Space::{SPACES.get(space, 'generic')}, {c_type}, {count}>({body.address(o[1], space)}, {body.site()})"
    if count == 1:
        return body.assign(targets[0], kind, f"*{call}")
    writes = " ".join(body.assign(r, kind, f"m[{i}]") for i, r in enumerate(targets))
    return f"{{ const auto* m = {call}; {writes} }}"


@handles("st")
def store(body, m, o):
    kind = m.type(set(TYPES) - {"pred", "f16", "bf16"})
    space, count = memory_modifiers(body, m)
    sources = body.vector(o[1])
    if len(sources) != count:
        body.fail(f"{len(sources)} sources of {m.opcode}")
    c_type = TYPES[kind]
    values = operands_as(body, sources, kind)
    if space == "param":
        target = parameter_bytes(body, o[0], count * width(kind))
        return " ".join(f"set_parameter<{c_type}>({target}, {i}, {v});" for i, v in enumerate(values))
    call = f"t.store<Space::{SPACES.get(space, 'generic')}, {c_type}, {count}>({body.address(o[0], space)}, {body.site()})"
    if count == 1:
        return f"*{call} = {values[0]};"
    writes = " ".join(f"m[{i}] = {v};" for i, v in enumerate(values))
    return f"{{ auto* m = {call}; {writes} }}"


def parameter_bytes(body, text, length):
    """Pointer to a parameter's bytes; an offset beyond its size is an error of the translation."""
    match = re.fullmatch(r"\[\s*([\w$%]+)\s*(?:\+\s*(-?\d+))?\s*\]", text)
    if not match:
        body.fail(f"parameter {text}")
    name, offset = match.group(1), int(match.group(2) or 0)
    if body.register(name) is not None:
        return f"t.parameter_at({body.value(name, 'u64')} + {offset}, {length}, {body.site()})"
    found = body.symbol(name)
    if not isinstance(found, Variable) or found.space != "param":
        body.fail(f"parameter {name}")
    if offset < 0 or offset + length > found.size:
        body.fail(f"bytes {offset} to {offset + length} of the parameter {name}, which has {found.size}")
    return f"{body.bytes_of(found)} + {offset}"


@handles("prefetch", "prefetchu", "applypriority", "discard")
def prefetch(body, m, o):
    m.drop({"global", "local", "L1", "L2", "L2::evict_last", "L2::evict_normal"})
    return f"static_cast<void>({body.address(o[0], 'global')});"


@handles("atom", "red")
def atomic(body, m, o):
    kind = m.type({"u32", "s32", "u64", "s64", "b32", "b64", "f32", "f64"})
    m.take("relaxed", "acquire", "release", "acq_rel")
    m.drop(SCOPES)
    m.drop(CACHE_HINTS)
    space = (m.take("global", "shared", "shared::cta") or "generic").split("::")[0]
    name = m.need("add", "min", "max", "inc", "dec", "exch", "cas", "and", "or", "xor")
    if kind[0] == "f" and name != "add" or kind[0] == "b" and name in ("add", "min", "max", "inc", "dec"):
        body.fail(m.opcode)
    place = 1 if base(m) == "atom" else 0
    values = operands_as(body, o[place + 1:], kind)
    if len(values) != (2 if name == "cas" else 1):
        body.fail(f"operands of {m.opcode}")
    old = (f"t.atomic<Space::{SPACES.get(space, 'generic')}, {TYPES[kind]}>({body.address(o[place], space)}, "
           f"[=]({TYPES[kind]} old) {{ return {ATOMIC[name].format(T=TYPES[kind], a=values[0], b=values[-1])}; }}, {body.site()})")
    return body.assign(o[0], kind, old) if place else f"static_cast<void>({old});"


ATOMIC = {"add": "atomic_add<{T}>(old, {a})", "min": "int_min<{T}>(old, {a})", "max": "int_max<{T}>(old, {a})",
          "inc": "old >= {a} ? {T}{{0}} : static_cast<{T}>(old + 1)",
          "dec": "old == 0 || old > {a} ? {a} : static_cast<{T}>(old - 1)", "exch": "{a}",
          "cas": "old == {a} ? {b} : old", "and": "static_cast<{T}>(old & {a})",
          "or": "static_cast<{T}>(old | {a})", "xor": "static_cast<{T}>(old ^ {a})"}


# 9.7.12: control flow


@handles("bra")
def branch(body, m, o):
    m.take("uni")
    return f"goto {label(body, o[0])};"


def label(body, name):
    found = body.statement.scope.find("labels", name)
    if found is None:
        body.fail(f"label {name}")
    return found


@handles("brx")
def branch_indexed(body, m, o):
    m.need("idx")
    m.take("uni")
    targets = body.statement.scope.find("names", o[1])
    if not isinstance(targets, list):
        body.fail(f"branch targets {o[1]}")
    cases = " ".join(f"case {i}: goto {label(body, name)};" for i, name in enumerate(targets))
    return f"switch ({body.value(o[0], 'u32')}) {{ {cases} default: t.bad_branch({body.site()}); }}"


@handles("ret")
def ret(body, m, o):
    m.take("uni")
    return "return;"


@handles("exit")
def exit_thread(body, m, o):
    return "return;" if body.function.kind == "entry" else "t.exit_thread();"


@handles("trap")
def trap(body, m, o):
    return f"t.trap({body.site()});"


@handles("call")
def call(body, m, o):
    m.take("uni")
    if o[0].startswith("("):
        results, o = split_operands(o[0][1:-1]), o[1:]
    else:
        results = []
    name = o[0]
    arguments = split_operands(o[1][1:-1]) if len(o) > 1 else []
    pointers = [body.bytes_of(body.symbol(a)) for a in results + arguments if isinstance(body.symbol(a), Variable)]
    if len(pointers) != len(results) + len(arguments) or len(o) > 2:
        body.fail(f"call of {name}: only calls by name with parameters in memory are known")
    if name == "__assertfail":
        return f"t.assertion_failed({', '.join(pointers[:4])}, {body.site()});"
    callee = body.translator.by_name.get(name)
    if callee is None:
        body.fail(f"call of {name}, which this file does not define")
    body.function.calls.add(name)
    return f"{body.translator.function_name(callee)}({', '.join(['t'] + pointers)});"


@handles("nanosleep", "membar", "fence")
def fence(body, m, o):
    """Threads take turns, so that every fence holds; a missing one goes unnoticed."""
    m.drop({"cta", "gl", "gpu", "sys", "sc", "acq_rel", "u32"})
    return ";"


# 9.7.13: what several threads do together


@handles("bar", "barrier")
def barrier(body, m, o):
    m.drop({"cta", "aligned"})
    if base(m) == "bar" and m.take("warp"):
        m.need("sync")
        return f"t.warp_barrier({body.value(o[0], 'b32')}, {body.site()});"
    if m.take("sync"):
        if len(o) != 1 or o[0] not in ("0",):
            body.fail(f"{m.opcode} {', '.join(o)}: only barrier 0 with all threads of the block is known")
        return f"t.barrier({body.site()});"
    m.need("red")
    name = m.need("popc", "and", "or")
    kind = m.type({"u32", "pred"})
    if len(o) != 3 or o[1] != "0":
        body.fail(f"{m.opcode} {', '.join(o)}: only barrier 0 with all threads of the block is known")
    return body.assign(o[0], kind, f"t.barrier_{name}({body.value(o[2], 'pred')}, {body.site()})")


@handles("shfl")
def shuffle(body, m, o):
    m.need("sync")
    m.type({"b32"})
    mode = m.need("up", "down", "bfly", "idx")
    value, lane, clamp, mask = operands_as(body, o[1:5], "b32")
    targets = [t.strip() for t in o[0].split("|")]
    call_text = f"t.shuffle(Shuffle::{mode}, {value}, {lane}, {clamp}, {mask}, {body.site()})"
    if len(targets) == 1:
        return body.assign(targets[0], "b32", f"{call_text}.value")
    return (f"{{ const auto s = {call_text}; {body.assign(targets[0], 'b32', 's.value')} "
            f"{body.assign(targets[1], 'pred', 's.in_range')} }}")


@handles("vote")
def vote(body, m, o):
    m.need("sync")
    name = m.need("all", "any", "uni", "ballot")
    kind = m.type({"pred", "b32"})
    return body.assign(o[0], kind, f"t.vote_{name}({body.value(o[1], 'pred')}, {body.value(o[2], 'b32')}, {body.site()})")


@handles("activemask")
def activemask(body, m, o):
    m.type({"b32"})
    return body.assign(o[0], "b32", "t.active_mask()")


@handles("match")
def match_lanes(body, m, o):
    name = m.need("any", "all")
    m.need("sync")
    kind = m.type({"b32", "b64"})
    value, mask = body.value(o[1], kind), body.value(o[2], "b32")
    targets = [t.strip() for t in o[0].split("|")]
    call_text = f"t.match_{name}({value}, {mask}, {body.site()})"
    if len(targets) == 1:
        return body.assign(targets[0], "b32", call_text)
    return f"{{ const U32 same = {call_text}; {body.assign(targets[0], 'b32', 'same')} {body.assign(targets[1], 'pred', 'same != 0')} }}"


@handles("redux")
def redux(body, m, o):
    m.need("sync")
    name = m.need("add", "min", "max", "and", "or", "xor")
    kind = m.type({"u32", "s32"} if name in ("add", "min", "max") else {"b32"})
    return body.assign(o[0], kind, f"t.reduce_{name}<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], 'b32')}, {body.site()})")


@handles("cp")
def copy_async(body, m, o):
    m.need("async")
    if m.take("commit_group"):
        return "t.copy_commit();"
    if m.take("wait_all"):
        return f"t.copy_wait_all({body.site()});"
    if m.take("wait_group"):
        return f"t.copy_wait({int(o[0], 0)}, {body.site()});"
    if not m.take("ca") and not m.take("cg"):
        body.fail(f"{m.opcode} is not known")
    m.need("shared", "shared::cta")
    m.need("global")
    m.drop({"L2::64B", "L2::128B", "L2::256B"})
    size = int(o[2], 0)
    if size not in (4, 8, 16) or len(o) > 4 or (".cg" in m.opcode and size != 16):
        body.fail(f"{m.opcode} {', '.join(o)}")
    if len(o) == 4 and (register := body.register(o[3].lstrip("!"))) is not None and register.kind == "pred":
        source = f"({body.value(o[3], 'pred')} ? 0u : {size}u)"
    else:
        source = body.value(o[3], "u32") if len(o) == 4 else f"{size}u"
    return f"t.copy_async({body.address(o[0], 'shared')}, {body.address(o[1], 'global')}, {size}, {source}, {body.site()});"


@handles("ldmatrix")
def ldmatrix(body, m, o):
    m.type({"b16"})
    m.need("sync")
    m.need("aligned")
    m.need("m8n8")
    count = {"x1": 1, "x2": 2, "x4": 4}[m.need("x1", "x2", "x4")]
    transposed = "true" if m.take("trans") else "false"
    space = (m.take("shared", "shared::cta") or "generic").split("::")[0]
    targets = body.vector(o[0])
    if space != "shared" or len(targets) != count:
        body.fail(m.opcode)
    writes = " ".join(body.assign(r, "b32", f"m[{i}]") for i, r in enumerate(targets))
    return f"{{ const auto m = t.load_matrix<{count}, {transposed}>({body.address(o[1], 'shared')}, {body.site()}); {writes} }}"


MATRIX_PRODUCTS = {"m16n8k16.row.col.f32.bf16.bf16.f32": ("bf16", 4, 2), "m16n8k8.row.col.f32.tf32.tf32.f32": ("tf32", 4, 2)}


@handles("mma")
def mma(body, m, o):
    m.need("sync")
    m.need("aligned")
    shape = ".".join(m.words)
    if shape not in MATRIX_PRODUCTS:
        body.fail(f"{m.opcode}: this shape and these types are not known")
    m.words.clear()
    name, a_count, b_count = MATRIX_PRODUCTS[shape]
    d, a, b, c = (body.vector(v) for v in o)
    if [len(d), len(a), len(b), len(c)] != [4, a_count, b_count, 4]:
        body.fail(f"operands of {m.opcode}")
    fragment = lambda parts, kind: "{" + ", ".join(operands_as(body, parts, kind)) + "}"
    writes = " ".join(body.assign(r, "f32", f"m[{i}]") for i, r in enumerate(d))
    return (f"{{ const auto m = t.multiply_{name}({fragment(a, 'b32')}, {fragment(b, 'b32')}, {fragment(c, 'f32')}, "
            f"{body.site()}); {writes} }}")
