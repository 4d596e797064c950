#!/usr/bin/env python3
"""Translates nvcc's PTX to C++ that runs on the emulator's threads, one C++ statement per instruction.

    ptx_translate.py kernels.ptx -o kernels.ptx.cpp [--fatbin kernels.fatbin] [--forbid-approximate]

Each entry becomes a C++ function of one thread; device functions that nvcc did not inline become
functions that pass their parameters as bytes. Registers are local variables, labels are labels and
branches are gotos. What an instruction computes is ptx_arithmetic.hpp; memory, barriers and whatever a
warp does together is ptx_thread.hpp. The file registers itself as a module (ptx_module.hpp) under the
hash of the fatbin in which nvcc packed the same PTX, so that a program cannot run with the translation
of another version of its source.

Not a general PTX front end: an opcode, modifier, type or directive that is not listed here is an error
that names the line and the kernel, with exit status 1. Nothing is skipped in silence.

Source: PTX ISA 9.0; comments of the form `# 9.7.x` name its chapters.
"""

import argparse
import re
import sys

import ptx_operations  # its instructions register themselves
from ptx_arithmetic import FLOATS, HANDLERS, Modifiers
from ptx_reader import TYPES, PtxError, Reader, Register, Variable, split_operands, width

SPECIAL = {"%laneid": "t.lane()", "%warpid": "t.warp()", "%nwarpid": "t.warps()",
           "%lanemask_eq": "t.lane_mask_eq()", "%lanemask_le": "t.lane_mask_le()",
           "%lanemask_lt": "t.lane_mask_lt()", "%lanemask_ge": "t.lane_mask_ge()",
           "%lanemask_gt": "t.lane_mask_gt()", "%clock": "t.clock()", "%clock_hi": "(t.clock() >> 32)",
           "%clock64": "t.clock()", "%globaltimer": "t.clock()", "%smid": "0", "%nsmid": "1",
           "%gridid": "0", "%dynamic_smem_size": "t.dynamic_shared_bytes()",
           "%total_smem_size": "t.shared_bytes()"}
for _name in ("tid", "ntid", "ctaid", "nctaid"):
    for _axis in "xyz":
        SPECIAL[f"%{_name}.{_axis}"] = f"t.{_name}.{_axis}"


def align_up(value, alignment):
    return (value + alignment - 1) // alignment * alignment


def c_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bits_of(c_type):
    return int(c_type[1:]) if c_type[0] in "USF" else 0


def viewed(expression, from_type, to_type):
    """C++ of a value of one register type as another: integers convert, floats keep their bits."""
    if from_type == to_type:
        return expression
    if from_type[0] in "US" and to_type[0] in "US":
        return f"static_cast<{to_type}>({expression})"
    if from_type[0] in "USF" and bits_of(from_type) == bits_of(to_type):
        return f"std::bit_cast<{to_type}>({expression})"
    return f"get<{to_type}>({expression})"


class Body:
    """Writes one function: C++ lines, the sites of its memory and warp operations, its basic blocks."""

    def __init__(self, translator, function):
        self.translator, self.function = translator, function
        self.lines, self.carry, self.used = [], False, {}
        self.statement = None

    def fail(self, what):
        raise PtxError(self.statement.line, f"{what} (in {self.function.name})")

    # Operands

    def register(self, name):
        found = self.statement.scope.find("names", name)
        if isinstance(found, Register):
            self.used[found.name] = found
            return found
        return None

    def value(self, text, kind):
        """C++ expression of the operand as a value of PTX type `kind`."""
        text = text.strip()
        if kind == "pred":
            negated = text.startswith("!")
            register = self.register(text.lstrip("! "))
            if register is None or register.kind != "pred":
                if text in ("0", "1", "-1"):  # nvcc negates by xor.pred with -1
                    return "false" if text == "0" else "true"
                self.fail(f"predicate {text}")
            return ("!" if negated else "") + register.name
        register = self.register(text)
        if register is not None:
            if register.kind == "pred":
                self.fail(f"predicate {text} as a {kind}")
            c_type = TYPES[kind]
            return viewed(register.name, register.type, c_type)
        if text in SPECIAL:
            return f"static_cast<{TYPES[kind]}>({SPECIAL[text]})"
        if text.startswith("%"):
            self.fail(f"special register {text}")
        return self.constant(text, kind)

    def constant(self, text, kind):
        match = re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text)
        if match:
            single, double = match.groups()
            literal = f"0x{single}u" if single else f"0x{double}ull"
            if kind == "f32" and single:
                return f"f32({literal})"
            if kind == "f64" and double:
                return f"f64({literal})"
            if kind in ("b32", "u32", "s32", "b64", "u64", "s64") and width(kind) == (4 if single else 8):
                return f"static_cast<{TYPES[kind]}>({literal})"
            self.fail(f"constant {text} as a {kind}")
        if re.fullmatch(r"-?\s*(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", text):
            digits = text.rstrip("U").replace(" ", "")
            number = int(digits, 8 if re.fullmatch(r"-?0[0-7]+", digits) else 0)
            bits = 8 * width(kind)
            number &= (1 << bits) - 1
            if kind in ("f16", "bf16"):
                return f"{TYPES[kind]}{{0x{number:x}u}}"
            if kind in FLOATS:
                self.fail(f"integer {text} as a {kind}")
            return f"static_cast<{TYPES[kind]}>(0x{number:x}ull)"
        return f"static_cast<{TYPES[kind]}>({self.symbol_address(text)})"

    def symbol(self, name):
        found = self.statement.scope.find("names", name)
        if found is None:
            found = next((p for p in self.function.parameters + self.function.results if p.name == name), None)
        if found is None:
            found = self.translator.module.variables.get(name)
        return found

    def symbol_address(self, text):
        """The address of a variable in its own space: shared is an offset, others are host addresses."""
        match = re.fullmatch(r"([\w$]+)\s*(?:\+\s*(-?\d+))?", text)
        found = match and self.symbol(match.group(1))
        if not isinstance(found, Variable):
            self.fail(f"operand {text}")
        offset = int(match.group(2) or 0)
        self.function.symbols.add(found.name)
        if found.space == "shared":
            base = "t.dynamic_shared_offset()" if found.extern else f"{self.translator.shared_offset(found)}u"
            return f"{base} + {offset}" if offset else base
        base = f"address_of({self.bytes_of(found)})"
        return f"{base} + {offset}" if offset else base

    def bytes_of(self, variable):
        """C++ name of the bytes of a variable outside shared memory."""
        if variable.space in ("global", "const"):
            return self.translator.global_name(variable)
        if variable in self.function.parameters and self.function.kind == "entry":
            return f"(t.parameters() + {variable.offset})"
        plain = re.sub(r"\W", "_", variable.name)
        return f"{plain}_{getattr(variable, 'scope', 'p')}"

    def vector(self, text):
        text = text.strip()
        return split_operands(text[1:-1]) if text.startswith("{") else [text]

    def assign(self, target, kind, expression):
        """Statement that writes a value of type `kind` to the operand."""
        target = target.strip()
        if target == "_":
            return f"static_cast<void>({expression});"
        register = self.register(target)
        if register is None:
            self.fail(f"target {target}")
        c_type = TYPES[kind]
        if c_type[0] in "USF" and (register.type[0] == "U" or bits_of(register.type) == bits_of(c_type)):
            # An integer is extended by its own sign, a float keeps its bits.
            if register.type[0] == "U" and c_type[0] in "US" or bits_of(register.type) == bits_of(c_type):
                return f"{register.name} = {viewed(expression, c_type, register.type)};"
        return f"set({register.name}, {expression});"

    def address(self, text, space):
        """Address operand `[register + offset]` or `[variable + offset]`, as a number in its space."""
        match = re.fullmatch(r"\[\s*([\w$%.]+)\s*(?:\+\s*(-?\w+))?\s*\]", text)
        if not match:
            self.fail(f"address {text}")
        base, offset = match.group(1), int(match.group(2) or "0", 0)
        kind = "u32" if space == "shared" else "u64"
        if self.register(base) is not None:
            expression = self.value(base, kind)
        elif re.fullmatch(r"\d+|0x[0-9a-fA-F]+", base):
            expression = f"static_cast<{TYPES[kind]}>({base})"
        else:
            expression = f"static_cast<{TYPES[kind]}>({self.symbol_address(base)})"
        if offset:
            expression += f" + static_cast<{TYPES[kind]}>({offset})"
        return expression

    def site(self):
        """A new site: what a report about this instruction can name."""
        return self.translator.add_site(self.function, self.statement, self.opcode)

    # The whole function

    def translate(self):
        after_jump = True
        for statement in self.function.statements:
            self.statement = statement
            if statement.kind == "label":
                self.lines.append(f"{statement.scope.labels[statement.text]}:;")
                after_jump = True
                continue
            guard, opcode, operands = self.parse(statement.text)
            self.opcode = opcode
            if after_jump:
                self.lines.append(f"  ++{self.translator.add_block()};")
                after_jump = False
            self.translator.count(opcode)
            text = self.instruction(opcode, operands)
            if guard:
                condition = self.value(guard, "pred")
                text = f"if ({condition}) {{ {text} }}"
            self.lines.append("  " + text)
            if opcode.split(".")[0] in ("bra", "brx", "ret", "exit", "trap"):
                after_jump = True

    def parse(self, text):
        match = re.match(r"(?:@(!?\s*[\w%$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", text, flags=re.S)
        if not match:
            self.fail(f"statement not understood: {text!r}")
        return match.group(1), match.group(2), split_operands(match.group(3))

    def instruction(self, opcode, operands):
        parts = opcode.split(".")
        handler = HANDLERS.get(parts[0])
        if handler is None:
            self.fail(f"opcode {opcode} is not known")
        modifiers = Modifiers(self, opcode, parts[1:])
        text = handler(self, modifiers, operands)
        modifiers.finish()
        return text

    def approximate(self, why):
        if self.translator.forbid_approximate:
            self.fail(f"{why} is an approximation, which --forbid-approximate rules out")
        self.translator.approximations += 1


class Translator:
    def __init__(self, module, source_name, forbid_approximate):
        self.module, self.source_name, self.forbid_approximate = module, source_name, forbid_approximate
        self.by_name = {f.name: f for f in module.functions}
        self.sites, self.blocks, self.opcodes = [], [], {}
        self.contractible, self.approximations, self.volatile, self.statements = [], 0, 0, 0
        self.place_shared()

    # Shared memory: variables of the module and of device functions lie at the same place for every
    # kernel, an entry's own behind them (or at 0, if it reaches none of those).

    def place_shared(self):
        end = 0
        common = [v for v in self.module.variables.values() if v.space == "shared" and not v.extern]
        for function in self.module.functions:
            if function.kind == "func":
                common += [v for v in function.variables if v.space == "shared"]
        for variable in common:
            variable.offset = align_up(end, variable.alignment)
            end = variable.offset + variable.size
        self.common_names, self.common_end = {v.name for v in common}, end
        for function in self.module.functions:
            if function.kind == "entry":
                at = end if self.reaches_common(function, set()) else 0
                for variable in function.variables:
                    if variable.space == "shared":
                        variable.offset = align_up(at, variable.alignment)
                        at = variable.offset + variable.size
                function.static_shared = at

    def reaches_common(self, function, seen):
        if function is None or function.name in seen:
            return False
        seen.add(function.name)
        text = " ".join(s.text for s in function.statements)
        words = set(re.findall(r"[\w$]+", text))
        if function.kind == "func" and any(v.space == "shared" for v in function.variables):
            return True
        if words & {n for n in self.common_names if n in self.module.variables}:
            return True
        return any(self.reaches_common(self.by_name[w], seen) for w in words & self.by_name.keys())

    def shared_offset(self, variable):
        return variable.offset

    def check_dynamic(self, variable):
        if variable.alignment > 16:
            raise PtxError(0, f"{variable.name} is aligned to {variable.alignment} bytes: dynamic shared memory is to 16")

    def global_name(self, variable):
        return "data_" + re.sub(r"\W", "_", variable.name)

    def function_name(self, function):
        return f"{function.kind}_{self.module.functions.index(function)}"

    TOOLKIT = re.compile(r"/targets/[^/]+/include/|/cuda[^/]*/include/|/include/crt/")

    def source_of(self, places):
        """C++ of the file and line: the innermost place that is not inlined from the toolkit's headers."""
        if not places:
            return "nullptr, 0"
        own = [p for p in places if not self.TOOLKIT.search(self.module.files.get(p[0], ""))] or places
        return f"{c_string(self.module.files.get(own[0][0], ''))}, {own[0][1]}"

    def add_site(self, function, statement, opcode):
        self.sites.append((function.name, opcode, statement.line, statement.source))
        return f"&sites[{len(self.sites) - 1}]"

    def add_block(self):
        self.blocks.append([])
        return f"executed[{len(self.blocks) - 1}]"

    def count(self, opcode):
        self.statements += 1
        self.blocks[-1].append(self.opcodes.setdefault(opcode, len(self.opcodes)))

    def place_parameters(self, function):
        offset = 0
        for parameter in function.parameters:
            parameter.offset = align_up(offset, parameter.alignment)
            offset = parameter.offset + parameter.size
        function.parameter_bytes = offset

    def signature(self, function):
        if function.kind == "entry":
            return f"void {self.function_name(function)}(Thread& t)"
        names = [f"std::byte* {re.sub(r'[^A-Za-z0-9_]', '_', v.name)}_p" for v in function.results + function.parameters]
        return f"void {self.function_name(function)}({', '.join(['Thread& t'] + names)})"

    def body_text(self, function):
        body = Body(self, function)
        body.translate()
        text = [f"// {function.name}", self.signature(function) + " {"]
        for register in body.used.values():
            text.append(f"  {register.type} {register.name}{{}};")
        if body.carry:
            text.append("  bool carry = false, unused_carry = false;")
        for variable in function.variables:
            if variable.space == "param":
                text.append(f"  alignas(16) std::byte {body.bytes_of(variable)}[{max(variable.size, 1)}];")
            elif variable.space == "local":
                name = body.bytes_of(variable)
                text.append(f"  alignas({variable.alignment}) std::byte {name}[{max(variable.size, 1)}];")
                text.append(f"  const LocalMemory memory_{name}(t, {name}, sizeof {name});")
            elif variable.space != "shared":
                raise PtxError(function.line, f".{variable.space} variable {variable.name} inside {function.name}")
        text += body.lines
        return text + ["}", ""]

    def data_text(self, variable):
        if variable.space not in ("global", "const"):
            return []
        if variable.extern:
            raise PtxError(0, f"the variable {variable.name} is defined elsewhere")
        name, element = self.global_name(variable), width(variable.element)
        values = variable.values or []
        out = []
        for value in values:
            if not re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?|0[fFdD][0-9a-fA-F]+", value):
                raise PtxError(0, f"initial value {value} of {variable.name}")
            number = int(value[2:], 16) if value[:2].lower() in ("0f", "0d") else int(value.rstrip("U"), 0)
            out += list((number & ((1 << 8 * element) - 1)).to_bytes(element, "little"))
        out += [0] * (variable.size - len(out))
        listed = ", ".join(f"std::byte{{{b}}}" for b in out)
        return [f"alignas({max(variable.alignment, 1)}) std::byte {name}[] = {{{listed}}};"]

    def write(self, fatbin_hash):
        for function in self.module.functions:
            self.place_parameters(function)
        bodies = [line for function in self.module.functions for line in self.body_text(function)]
        text = ["// Made by ptx_translate.py from " + self.source_name + ": do not edit.",
                "#include <emulator/ptx_module.hpp>", "#include <emulator/ptx_thread.hpp>", "",
                "// nvcc computes what nobody reads, too.",
                '#pragma GCC diagnostic ignored "-Wunused-but-set-variable"',
                '#pragma GCC diagnostic ignored "-Wunused-variable"',
                '#pragma GCC diagnostic ignored "-Wunused-parameter"',
                '#pragma GCC diagnostic ignored "-Wunused-label"',
                '#pragma GCC diagnostic ignored "-Wunused-function"', "", "namespace {", "using namespace plumb::emulator::ptx;", ""]
        for variable in self.module.variables.values():
            if variable.space == "shared" and variable.extern:
                self.check_dynamic(variable)
            text += self.data_text(variable)
        text += [f"extern Site sites[{max(len(self.sites), 1)}];", f"std::uint64_t executed[{max(len(self.blocks), 1)}];", "extern Module module;", ""]
        text += [self.signature(f) + ";" for f in self.module.functions] + [""]
        text += bodies + self.tables_text(fatbin_hash) + ["}  // namespace", ""]
        return "\n".join(text)

    def tables_text(self, fatbin_hash):
        text = [f"Site sites[{max(len(self.sites), 1)}] = {{"]
        for name, opcode, line, source in self.sites:
            text.append(f"  {{{c_string(name)}, {c_string(opcode)}, {line}, {self.source_of(source)}}},")
        text += ["};", ""]
        listed = [f"{c_string(o)}" for o in self.opcodes] or ['""']
        text.append(f"const char* const opcodes[] = {{{', '.join(listed)}}};")
        flat, starts = [], [0]
        for block in self.blocks:
            flat += block
            starts.append(len(flat))
        text.append(f"const std::uint16_t block_opcodes[] = {{{', '.join(map(str, flat or [0]))}}};")
        text.append(f"const std::uint32_t block_starts[] = {{{', '.join(map(str, starts))}}};")
        data = [v for v in self.module.variables.values() if v.space in ("global", "const")]
        spans = [f"{{{self.global_name(v)}, {v.size}, {'true' if v.space == 'const' else 'false'}}}" for v in data]
        text.append(f"const Data data[] = {{{', '.join(spans) or '{nullptr, 0, false}'}}};")
        entries = [f for f in self.module.functions if f.kind == "entry"]
        for function in entries:
            listed = ", ".join(f"{{{p.offset}, {p.size}}}" for p in function.parameters) or "{0, 0}"
            text.append(f"const Parameter parameters_{self.function_name(function)}[] = {{{listed}}};")
            text.append(f"void run_{self.function_name(function)}(const void* p) {{ run_thread({self.function_name(function)}, p, module); }}")
        text.append("const Entry entries[] = {")
        for function in entries:
            name = self.function_name(function)
            text.append(f"  {{{c_string(function.name)}, run_{name}, parameters_{name}, {len(function.parameters)}, "
                        f"{function.parameter_bytes}, {function.static_shared}, {function.max_threads}}},")
        if not entries:
            text.append("  {},")
        text += ["};", "Module module{",
                 f"    {c_string(self.module.target)}, {c_string(self.source_name)}, 0x{fatbin_hash:016x}ull,",
                 f"    entries, {len(entries)}, sites, {len(self.sites)}, data, {len(data)},",
                 f"    executed, block_starts, block_opcodes, {len(self.blocks)}, opcodes, {len(self.opcodes)}}};",
                 "const Registration registration(module);"]
        return text


def fnv1a(data):
    """The hash of ptx_module.hpp over the 8-byte words of the fatbin."""
    value = 0xcbf29ce484222325
    for at in range(0, len(data), 8):
        value = ((value ^ int.from_bytes(data[at:at + 8], "little")) * 0x100000001b3) & 0xffffffffffffffff
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ptx")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--fatbin", help="the fatbin that holds this PTX: ties the translation to the object")
    parser.add_argument("--forbid-approximate", action="store_true", help="ex2.approx and its like are errors")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    try:
        with open(options.ptx, encoding="utf-8") as file:
            module = Reader(file.read()).read()
        translator = Translator(module, options.ptx.rsplit("/", 1)[-1], options.forbid_approximate)
        fatbin_hash = 0
        if options.fatbin:
            with open(options.fatbin, "rb") as file:
                fatbin_hash = fnv1a(file.read())
        text = translator.write(fatbin_hash)
    except PtxError as error:
        print(f"{options.ptx}:{error.line}: error: {error}", file=sys.stderr)
        return 1
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(text)
    for line in translator.contractible[:5]:
        print(f"{options.ptx}:{line}: warning: an f32 or f64 sum or product without a rounding mode, which ptxas "
              "may contract to an fma (compile with -fmad=false)", file=sys.stderr)
    if not options.quiet:
        print(f"{options.ptx}: {len(module.functions)} functions, {translator.statements} statements, "
              f"{len(translator.opcodes)} opcodes, {len(translator.contractible)} contractible, "
              f"{translator.approximations} approximate, {translator.volatile} volatile")
    return 0


if __name__ == "__main__":
    sys.exit(main())
