"""PTX instructions on registers alone, as C++: arithmetic, comparison, selection, conversion.

Each handler is given the function that is written, the words after the opcode's first, and the operands;
it returns a C++ statement. What the named C++ functions compute is in ptx_arithmetic.hpp.
"""

import re

from ptx_reader import TYPES, width

INTEGERS = {"u16", "s16", "u32", "s32", "u64", "s64"}
FLOATS = {"f32", "f64", "f16", "bf16"}
ROUNDINGS = {"rn": "nearest", "rz": "toward_zero", "rm": "downward", "rp": "upward"}
INTEGRAL_ROUNDINGS = {"rni": "nearest", "rzi": "toward_zero", "rmi": "downward", "rpi": "upward"}


class Modifiers:
    """The dotted words after an opcode; a word that no handler took is an error."""

    def __init__(self, body, opcode, words):
        self.body, self.opcode, self.words = body, opcode, words

    def take(self, *names):
        """Removes the first of `names` that is present and returns it."""
        for word in self.words:
            if word in names:
                self.words.remove(word)
                return word
        return None

    def drop(self, names):
        while self.take(*names):
            pass

    def need(self, *names):
        found = self.take(*names)
        if found is None:
            self.body.fail(f"{self.opcode} needs one of .{', .'.join(names)}")
        return found

    def type(self, allowed=None):
        """The last word, which must be a type (of those allowed)."""
        if not self.words or self.words[-1] not in (allowed or TYPES):
            self.body.fail(f"type of {self.opcode}")
        return self.words.pop()

    def finish(self):
        if self.words:
            self.body.fail(f"modifier .{self.words[0]} of {self.opcode} is not known")


HANDLERS = {}


def handles(*names):
    def register(function):
        for name in names:
            HANDLERS[name] = function
        return function
    return register


def base(modifiers):
    return modifiers.opcode.split(".")[0]


def operands_as(body, operands, kind):
    return [body.value(o, kind) for o in operands]


def finish_float(expression, flush, saturate, relu=False):
    if relu:
        expression = f"relu({expression})"
    if saturate:
        expression = f"saturate_unit({expression})"
    return f"flush({expression})" if flush else expression


def float_inputs(body, operands, kind, flush):
    return [f"flush({v})" if flush else v for v in operands_as(body, operands, kind)]


# 9.7.1, 9.7.2, 9.7.3: arithmetic


@handles("add", "sub", "addc", "subc")
def add(body, m, o):
    name = base(m)
    kind = m.type(INTEGERS | FLOATS | {"b32", "b64"})
    if kind in FLOATS:
        return float_binary(body, m, o, kind, name)
    a, b = operands_as(body, o[1:], kind)
    carries_in, carries_out, saturates = name.endswith("c"), m.take("cc"), m.take("sat")
    if carries_in or carries_out:
        body.carry = True
        function = "add_carry" if name.startswith("add") else "sub_borrow"
        carry = "carry" if carries_in else "false"
        out = "carry" if carries_out else "unused_carry"
        return body.assign(o[0], kind, f"{function}<{TYPES[kind]}>({a}, {b}, {carry}, {out})")
    if saturates:
        if kind != "s32":
            body.fail(f"{m.opcode}")
        sign = "+" if name == "add" else "-"
        return body.assign(o[0], kind, f"int_saturate(S64{{{a}}} {sign} S64{{{b}}})")
    if wraps(kind):
        a, b = operands_as(body, o[1:], "u" + kind[1:])
        return body.assign(o[0], "u" + kind[1:], f"{a} {'+' if name == 'add' else '-'} {b}")
    return body.assign(o[0], kind, f"int_{name}<{TYPES[kind]}>({a}, {b})")


def wraps(kind):
    """Whether C++'s unsigned operators of the width do what the instruction does."""
    return kind in ("u32", "s32", "b32", "u64", "s64", "b64")


FLOAT_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def float_binary(body, m, o, kind, name):
    rounding, flush, saturate = m.take(*ROUNDINGS), m.take("ftz"), m.take("sat")
    if rounding is None and kind in ("f32", "f64"):
        body.translator.contractible.append(body.statement.line)
    a, b = float_inputs(body, o[1:], kind, flush)
    if rounding in (None, "rn"):
        expression = f"float_{name}<{TYPES[kind]}>({a}, {b})"
        if kind in ("f32", "f64"):
            expression = f"{a} {FLOAT_SIGNS[name]} {b}"
    elif name == "sub":
        expression = f"add_rounded({a}, float_neg({b}), {ROUNDINGS[rounding]})"
    else:
        expression = f"{name}_rounded({a}, {b}, {ROUNDINGS[rounding]})"
    return body.assign(o[0], kind, finish_float(expression, flush, saturate))


@handles("mul")
def mul(body, m, o):
    kind = m.type(INTEGERS | FLOATS)
    if kind in FLOATS:
        return float_binary(body, m, o, kind, "mul")
    part = m.need("lo", "hi", "wide")
    a, b = operands_as(body, o[1:], kind)
    result = kind if part != "wide" else kind[0] + str(16 * width(kind))
    if part == "lo" and wraps(kind):
        a, b = operands_as(body, o[1:], "u" + kind[1:])
        return body.assign(o[0], "u" + kind[1:], f"{a} * {b}")
    if part == "wide" and width(kind) == 4:
        return body.assign(o[0], result, f"{TYPES[result]}{{{a}}} * {b}")
    return body.assign(o[0], result, f"int_mul_{part}<{TYPES[kind]}>({a}, {b})")


@handles("mad", "madc")
def mad(body, m, o):
    kind = m.type(INTEGERS)
    part = m.need("lo", "hi", "wide")
    result = kind if part != "wide" else kind[0] + str(16 * width(kind))
    a, b = operands_as(body, o[1:3], kind)
    c = body.value(o[3], result)
    product = f"int_mul_{part}<{TYPES[kind]}>({a}, {b})"
    carries_in, carries_out = base(m) == "madc", m.take("cc")
    if m.take("sat"):
        if kind != "s32" or part != "hi" or carries_in or carries_out:
            body.fail(m.opcode)
        return body.assign(o[0], kind, f"int_saturate(S64{{{product}}} + S64{{{c}}})")
    if carries_in or carries_out:
        body.carry = True
        carry = "carry" if carries_in else "false"
        out = "carry" if carries_out else "unused_carry"
        return body.assign(o[0], result, f"add_carry<{TYPES[result]}>({product}, {c}, {carry}, {out})")
    if part == "lo" and wraps(kind):
        a, b, c = operands_as(body, o[1:4], "u" + kind[1:])
        return body.assign(o[0], "u" + kind[1:], f"{a} * {b} + {c}")
    return body.assign(o[0], result, f"int_add<{TYPES[result]}>({product}, {c})")


@handles("mul24", "mad24")
def mul24(body, m, o):
    kind = m.type({"u32", "s32"})
    m.need("lo")
    a, b = operands_as(body, o[1:3], kind)
    expression = f"mul24_lo<{TYPES[kind]}>({a}, {b})"
    if base(m) == "mad24":
        expression = f"int_add<{TYPES[kind]}>({expression}, {body.value(o[3], kind)})"
    return body.assign(o[0], kind, expression)


@handles("fma")
def fma(body, m, o):
    kind = m.type(FLOATS)
    rounding, flush, saturate, relu = m.need(*ROUNDINGS), m.take("ftz"), m.take("sat"), m.take("relu")
    a, b, c = float_inputs(body, o[1:], kind, flush)
    if rounding == "rn":
        function = "std::fma" if kind in ("f32", "f64") else f"float_fma<{TYPES[kind]}>"
        expression = f"{function}({a}, {b}, {c})"
    else:
        expression = f"fma_rounded({a}, {b}, {c}, {ROUNDINGS[rounding]})"
    return body.assign(o[0], kind, finish_float(expression, flush, saturate, relu))


@handles("div")
def div(body, m, o):
    kind = m.type(INTEGERS | {"f32", "f64"})
    if kind in INTEGERS:
        a, b = operands_as(body, o[1:], kind)
        return body.assign(o[0], kind, f"int_div<{TYPES[kind]}>({a}, {b})")
    return float_root(body, m, o, kind, "div")


@handles("sqrt", "rcp")
def sqrt(body, m, o):
    return float_root(body, m, o, m.type({"f32", "f64"}), base(m))


def float_root(body, m, o, kind, name):
    """Quotients, reciprocals and roots: correctly rounded, or `.approx`, which is the nearest here."""
    rounding, flush = m.need("approx", "full", *ROUNDINGS), m.take("ftz")
    values = float_inputs(body, o[1:], kind, flush)
    if name == "rcp":
        name, values = "div", [f"{TYPES[kind]}{{1}}", values[0]]
    if rounding in ("approx", "full"):
        body.approximate(m.opcode)
    if rounding in ("approx", "full", "rn"):
        expression = f"float_{name}({', '.join(values)})"
    else:
        expression = f"{name}_rounded({', '.join(values)}, {ROUNDINGS[rounding]})"
    return body.assign(o[0], kind, finish_float(expression, flush, None))


@handles("rem")
def rem(body, m, o):
    kind = m.type(INTEGERS)
    a, b = operands_as(body, o[1:], kind)
    return body.assign(o[0], kind, f"int_rem<{TYPES[kind]}>({a}, {b})")


@handles("neg", "abs")
def negate(body, m, o):
    kind = m.type(INTEGERS | FLOATS)
    flush = m.take("ftz")
    family = "float" if kind in FLOATS else "int"
    value = float_inputs(body, o[1:], kind, flush)[0]
    return body.assign(o[0], kind, f"{family}_{base(m)}<{TYPES[kind]}>({value})")


@handles("min", "max")
def extremum(body, m, o):
    kind = m.type(INTEGERS | FLOATS)
    if kind in INTEGERS:
        values = operands_as(body, o[1:], kind)
        return body.assign(o[0], kind, f"int_{base(m)}<{TYPES[kind]}>({', '.join(values)})")
    flush, keep = m.take("ftz"), "_nan" if m.take("NaN") else ""
    values = float_inputs(body, o[1:], kind, flush)
    return body.assign(o[0], kind, f"float_{base(m)}{keep}<{TYPES[kind]}>({', '.join(values)})")


@handles("ex2", "lg2", "sin", "cos", "tanh", "rsqrt")
def approximation(body, m, o):
    name = {"ex2": "exp2", "lg2": "log2"}.get(base(m), base(m))
    kind = m.type({"f32", "f64", "f16", "bf16"} if name in ("exp2", "tanh", "rsqrt") else {"f32"})
    m.need("approx")
    flush = m.take("ftz") and kind in ("f32", "f64")
    body.approximate(m.opcode)
    value = float_inputs(body, o[1:], kind, flush)[0]
    return body.assign(o[0], kind, finish_float(f"approx_{name}({value})", flush, None))


@handles("copysign")
def copysign(body, m, o):
    kind = m.type({"f32", "f64"})
    return body.assign(o[0], kind, f"copy_sign({', '.join(operands_as(body, o[1:], kind))})")


@handles("testp")
def testp(body, m, o):
    kind = m.type({"f32", "f64"})
    which = m.need("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    return body.assign(o[0], "pred", f"test_class({body.value(o[1], kind)}, FloatClass::{which})")


# 9.7.1, 9.7.8: bits


@handles("and", "or", "xor")
def logic(body, m, o):
    kind = m.type({"pred", "b16", "b32", "b64"})
    a, b = operands_as(body, o[1:], kind)
    sign = {"and": "&", "or": "|", "xor": "^"}[base(m)]
    return body.assign(o[0], kind, f"static_cast<{TYPES[kind]}>({a} {sign} {b})")


@handles("not", "cnot")
def complement(body, m, o):
    kind = m.type({"pred", "b16", "b32", "b64"})
    value = body.value(o[1], kind)
    sign = "!" if kind == "pred" or base(m) == "cnot" else "~"
    return body.assign(o[0], kind, f"static_cast<{TYPES[kind]}>({sign}({value}))")


@handles("lop3")
def lop3(body, m, o):
    m.type({"b32"})
    values = operands_as(body, o[1:5], "b32")
    return body.assign(o[0], "b32", f"lop3({', '.join(values)})")


@handles("shl", "shr")
def shift(body, m, o):
    kind = m.type({f"{s}{b}" for s in ("b", "u", "s") for b in (16, 32, 64)})
    value = body.value(o[1], kind)
    if width(kind) >= 4 and re.fullmatch(r"\d+", o[2]) and int(o[2]) < 8 * width(kind):
        if base(m) == "shl":
            kind = "u" + kind[1:]
            value = body.value(o[1], kind)
        return body.assign(o[0], kind, f"{value} {'<<' if base(m) == 'shl' else '>>'} {o[2]}")
    return body.assign(o[0], kind, f"{base(m)}<{TYPES[kind]}>({value}, {body.value(o[2], 'u32')})")


@handles("shf")
def funnel(body, m, o):
    m.type({"b32"})
    side, mode = m.need("l", "r"), m.need("wrap", "clamp")
    low, high, n = operands_as(body, o[1:], "b32")
    n = f"({n} & 31u)" if mode == "wrap" else n
    return body.assign(o[0], "b32", f"funnel_{'left' if side == 'l' else 'right'}({low}, {high}, {n})")


@handles("bfe")
def bfe(body, m, o):
    kind = m.type({"u32", "s32", "u64", "s64"})
    return body.assign(o[0], kind, f"bit_extract<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], 'u32')}, {body.value(o[3], 'u32')})")


@handles("bfi")
def bfi(body, m, o):
    kind = m.type({"b32", "b64"})
    return body.assign(o[0], kind, f"bit_insert<{TYPES[kind]}>({body.value(o[1], kind)}, {body.value(o[2], kind)}, {body.value(o[3], 'u32')}, {body.value(o[4], 'u32')})")


@handles("bfind")
def bfind(body, m, o):
    kind = m.type({"u32", "s32", "u64", "s64"})
    shift_amount = "true" if m.take("shiftamt") else "false"
    return body.assign(o[0], "u32", f"bit_find<{TYPES[kind]}>({body.value(o[1], kind)}, {shift_amount})")


@handles("clz", "popc", "brev")
def count_bits(body, m, o):
    kind = m.type({"b32", "b64"})
    value = body.value(o[1], kind)
    if base(m) == "brev":
        return body.assign(o[0], kind, f"bit_reverse({value})")
    function = {"clz": "countl_zero", "popc": "popcount"}[base(m)]
    return body.assign(o[0], "u32", f"static_cast<U32>(std::{function}({value}))")


@handles("prmt")
def prmt(body, m, o):
    m.type({"b32"})
    return body.assign(o[0], "b32", f"permute({', '.join(operands_as(body, o[1:], 'b32'))})")


@handles("dp4a")
def dp4a(body, m, o):
    b_type, a_type = m.type({"u32", "s32"}), m.type({"u32", "s32"})
    views = ", ".join({"u": "U8", "s": "S8"}[t[0]] for t in (a_type, b_type))
    return body.assign(o[0], "b32", f"dot4<{views}>({', '.join(operands_as(body, o[1:], 'b32'))})")


@handles("sad")
def sad(body, m, o):
    kind = m.type(INTEGERS)
    return body.assign(o[0], kind, f"absolute_difference_plus<{TYPES[kind]}>({', '.join(operands_as(body, o[1:], kind))})")


# 9.7.5, 9.7.6: comparison and selection

COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
               "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
UNORDERED = {"equ": "==", "neu": "!=", "ltu": "<", "leu": "<=", "gtu": ">", "geu": ">="}


def comparison(body, word, kind, a, b, flush):
    if kind in FLOATS:
        a, b = (f"widen({'flush(' + v + ')' if flush else v})" for v in (a, b))
        both = f"({a} == {a} && {b} == {b})"
        if word in ("num", "nan"):
            return both if word == "num" else f"!{both}"
        if word in UNORDERED:
            return f"(!{both} || {a} {UNORDERED[word]} {b})"
        if word == "ne":
            return f"({both} && {a} != {b})"
        if word in ("lo", "ls", "hi", "hs"):
            body.fail(f"comparison .{word} of {kind}")
        return f"({a} {COMPARISONS[word]} {b})"
    if word not in COMPARISONS:
        body.fail(f"comparison .{word} of {kind}")
    return f"({a} {COMPARISONS[word]} {b})"


@handles("setp", "set")
def compare(body, m, o):
    kind = m.type(INTEGERS | FLOATS | {"b16", "b32", "b64"})
    result = m.type({"u32", "s32", "f32", "f16", "bf16", "u16", "s16"}) if base(m) == "set" else "pred"
    word = m.need(*COMPARISONS, *UNORDERED, "num", "nan")
    combine, flush = m.take("and", "or", "xor"), m.take("ftz")
    compared_as = "u" + kind[1:] if word in ("lo", "ls", "hi", "hs") else kind
    a, b = operands_as(body, o[1:3], compared_as)
    condition = comparison(body, word, kind, a, b, flush)
    signs = {"and": "&&", "or": "||", "xor": "!="}
    third = body.value(o[3], "pred") if combine else None
    if base(m) == "set":
        if combine:
            condition = f"({condition} {signs[combine]} {third})"
        ones = {"f32": ("1.0f", "0.0f"), "f16": ("Half{0x3c00}", "Half{}"), "bf16": ("Brain{0x3f80}", "Brain{}")}
        yes, no = ones.get(result, (f"static_cast<{TYPES[result]}>(-1)", f"{TYPES[result]}{{0}}"))
        return body.assign(o[0], result, f"{condition} ? {yes} : {no}")
    targets = o[0].split("|")
    first = condition if not combine else f"({condition} {signs[combine]} {third})"
    if len(targets) == 1:
        return body.assign(targets[0], "pred", first)
    second = f"!{condition}" if not combine else f"(!{condition} {signs[combine]} {third})"
    return (f"{{ const bool yes = {first}, no = {second}; {body.assign(targets[0], 'pred', 'yes')} "
            f"{body.assign(targets[1], 'pred', 'no')} }}")


@handles("selp")
def selp(body, m, o):
    kind = m.type(set(TYPES) - {"pred", "u8", "s8", "b8"})
    a, b = operands_as(body, o[1:3], kind)
    return body.assign(o[0], kind, f"{body.value(o[3], 'pred')} ? {a} : {b}")


@handles("slct")
def slct(body, m, o):
    chosen = m.type({"s32", "f32"})
    kind = m.type(set(TYPES) - {"pred", "u8", "s8", "b8"})
    flush = m.take("ftz")
    a, b = operands_as(body, o[1:3], kind)
    condition = body.value(o[3], chosen)
    condition = f"flush({condition})" if flush else condition
    return body.assign(o[0], kind, f"{condition} >= 0 ? {a} : {b}")


# 9.7.9.21: conversion


@handles("cvt")
def cvt(body, m, o):
    if "bf16x2" in m.words or "f16x2" in m.words:
        return convert_pair(body, m, o)
    source = m.type()
    if "tf32" in m.words:
        m.need("tf32")
        rounding = m.need("rna", "rn")
        ties = "true" if rounding == "rna" else "false"
        return body.assign(o[0], "b32", f"tf32_from({body.value(o[1], source)}, {ties})")
    target = m.type()
    integral, rounding = m.take(*INTEGRAL_ROUNDINGS), m.take(*ROUNDINGS)
    flush, saturate, rel = m.take("ftz"), m.take("sat"), m.take("relu")
    flush_in, flush_out = flush and source == "f32", flush and target == "f32"
    value = body.value(o[1], source)
    value = f"flush({value})" if flush_in else value
    to = TYPES[target]
    if source in FLOATS and target not in FLOATS:
        if integral is None:
            body.fail(f"{m.opcode} without a rounding")
        return body.assign(o[0], target, f"to_integer<{to}>({value}, {INTEGRAL_ROUNDINGS[integral]})")
    if source not in FLOATS and target in FLOATS:
        expression = f"from_integer<{to}>({value}, {ROUNDINGS[rounding or 'rn']})"
    elif source in FLOATS:
        expression = value
        if source != target:
            exact = width(target) > width(source)
            if rounding is None and not exact:
                body.fail(f"{m.opcode} without a rounding")
            expression = f"from_float<{to}>({value}, {ROUNDINGS[rounding or 'rn']})"
        elif integral:
            if source in ("f16", "bf16"):
                body.fail(m.opcode)
            expression = f"round_to_integral({value}, {INTEGRAL_ROUNDINGS[integral]})"
        elif rounding is not None:
            body.fail(m.opcode)
    else:
        function = "to_width_saturated" if saturate else "static_cast"
        return body.assign(o[0], target, f"{function}<{to}>({value})")
    return body.assign(o[0], target, finish_float(expression, flush_out, saturate, rel))


def convert_pair(body, m, o):
    """cvt.rn.bf16x2.f32 d, a, b: a in the upper half."""
    m.type({"f32"})
    small = {"bf16x2": "Brain", "f16x2": "Half"}[m.need("bf16x2", "f16x2")]
    rounding, rel = m.need("rn", "rz"), m.take("relu")
    halves = [finish_float(f"from_float<{small}>({body.value(v, 'f32')}, {ROUNDINGS[rounding]})", None, None, rel) for v in o[1:]]
    return body.assign(o[0], "b32", f"pair_of({halves[1]}, {halves[0]})")
