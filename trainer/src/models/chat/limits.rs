//! A template is a program of whoever made the model: it may loop for ever, or double a string until the memory is gone.
//!
//! minijinja counts instructions but not what they make. So between compiling and running, every instruction that makes,
//! compares or prints values gets a guard in front of it, which weighs the operands and what will come of them. The
//! instructions themselves stay minijinja's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use minijinja::machinery::{self, CompiledTemplate, Instruction, Instructions, TemplateConfig, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{DynObject, Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

/// Instructions of one rendering, guards included, and how many more for each byte of input. A turn takes some hundreds.
const FUEL: u64 = 2_000_000;
const FUEL_PER_BYTE: u64 = 20;
/// Calls of macros inside one another and the like; each costs native stack.
const RECURSION: usize = 120;
/// Lists within lists.
const DEEPEST: usize = 32;
/// What a value weighs beside its text, bytes.
const NODE: usize = 16;
/// The guard's name: no identifier, so that no template can say or hide it.
const GUARD: &str = "guard of values";

/// Transformers' settings: the newline after a block and the spaces before it are no part of the text.
static SYNTAX: LazyLock<SyntaxConfig> = LazyLock::new(|| {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true);
    builder.build().unwrap_or_default() // the delimiters are the default ones, which are sound
});

/// What one rendering may still make, bytes.
#[derive(Debug)]
pub(super) struct Meter {
    /// The most one value, and the output, may weigh.
    largest: usize,
    /// What all values made together may still weigh.
    left: AtomicUsize,
    printed: AtomicUsize,
    /// Instructions.
    fuel: u64,
}

impl Meter {
    /// Room for a rendering whose template and messages are `input` bytes.
    pub(super) fn new(input: usize) -> Arc<Self> {
        let largest = (4 << 20) + input.saturating_mul(4);
        let left = AtomicUsize::new(largest.saturating_mul(16));
        let fuel = FUEL + FUEL_PER_BYTE.saturating_mul(input as u64);
        Arc::new(Self { largest, left, printed: AtomicUsize::new(0), fuel })
    }

    fn charge(&self, weight: usize) -> Result<(), Error> {
        let left = self.left.load(Ordering::Relaxed);
        let rest = left.checked_sub(weight).ok_or_else(|| self.too_much("makes"))?;
        self.left.store(rest, Ordering::Relaxed); // one thread renders
        Ok(())
    }

    fn too_much(&self, does: &str) -> Error {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("the template {does} too much (at most {} bytes)", self.largest),
        )
    }

    /// The weight of a value: its text, and something for each value in it.
    fn weigh(&self, value: &Value) -> Result<usize, Error> {
        let mut left = self.largest;
        self.weigh_within(value, DEEPEST, &mut left)?;
        Ok(self.largest - left)
    }

    fn weigh_within(&self, value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
        let text = value.as_str().map_or(0, str::len) + value.as_bytes().map_or(0, <[u8]>::len);
        *left = left.checked_sub(NODE + text).ok_or_else(|| self.too_much("makes"))?;
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth == 0 {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("values nested deeper than {DEEPEST}")));
        }
        let mut inner = |value: &Value| self.weigh_within(value, depth - 1, left);
        match object.repr() {
            ObjectRepr::Map => each_pair(object, |key, value| inner(key).and_then(|()| inner(value))),
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                object.try_iter().into_iter().flatten().try_for_each(|value| inner(&value))
            }
            _ => Ok(()),
        }
    }

    /// Weighs the operands of an operation and what it will make of them.
    fn admit(&self, operation: &str, operands: &[Value]) -> Result<(), Error> {
        let weights = operands.iter().map(|value| self.weigh(value)).collect::<Result<Vec<_>, _>>()?;
        let made = made_by(operation, operands, &weights)?;
        if made > self.largest {
            return Err(self.too_much("makes"));
        }
        // Looking at a value costs time too: a sixteenth of making it.
        self.charge(made.saturating_add(weights.iter().sum::<usize>() / 16))
    }

    /// Counts what is printed, into the output or into a variable.
    pub(super) fn print(&self, value: &Value) -> Result<(), Error> {
        let weight = self.weigh(value)?;
        self.charge(weight)?;
        let printed = self.printed.fetch_add(weight, Ordering::Relaxed) + weight;
        if printed > self.largest { Err(self.too_much("prints")) } else { Ok(()) }
    }
}

fn each_pair(object: &DynObject, mut see: impl FnMut(&Value, &Value) -> Result<(), Error>) -> Result<(), Error> {
    object.try_iter_pairs().into_iter().flatten().try_for_each(|(key, value)| see(&key, &value))
}

/// Filters that `map` may name: those that make no more than they are given.
const MAPPED: [&str; 14] = [
    "abs",
    "bool",
    "capitalize",
    "first",
    "float",
    "int",
    "last",
    "length",
    "lower",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
];

/// An upper bound on the weight of what an operation, filter or method makes of `operands`, which weigh `weights`.
fn made_by(operation: &str, operands: &[Value], weights: &[usize]) -> Result<usize, Error> {
    let all: usize = weights.iter().sum();
    let text = |i: usize| operands.get(i).and_then(Value::as_str);
    Ok(match operation {
        "+" | "~" | "[]" => all,
        "*" => {
            let times = |i: usize| operands[i].as_usize().map(|n| n.saturating_mul(weights[1 - i]));
            match (operands[0].is_number(), operands[1].is_number()) {
                (true, false) => times(0).unwrap_or(0),
                (false, true) => times(1).unwrap_or(0),
                _ => NODE,
            }
        }
        "replace" => match (text(0), text(1), text(2)) {
            (Some(whole), Some(old), Some(new)) => {
                all.saturating_add(whole.matches(old).count().saturating_mul(new.len()))
            }
            _ => all,
        },
        // the joint is one of the operands, and there are fewer places for it than values
        "join" => {
            let joint = operands.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0);
            all.saturating_add((all / NODE).saturating_mul(joint))
        }
        "indent" => {
            let lines = text(0).map_or(0, |text| text.split('\n').count());
            let named = operands.last().and_then(|last| last.get_attr("width").ok());
            let width = operands.iter().chain(&named).filter_map(Value::as_usize).max().unwrap_or(4);
            all.saturating_add(lines.saturating_mul(width))
        }
        "list" | "split" | "splitlines" | "lines" => all.saturating_mul(24), // each letter may become a value
        "map" => match text(1) {
            Some(filter) if !MAPPED.contains(&filter) => {
                return Err(Error::new(ErrorKind::InvalidOperation, format!("map({filter:?}) is not supported")));
            }
            _ => all.saturating_mul(3),
        },
        "format" => return Err(Error::new(ErrorKind::InvalidOperation, "format is not supported")),
        "compare" | "look" => 0,
        // upper case takes up to three times the bytes
        _ => all.saturating_mul(3),
    })
}

/// The function that guards call: operands and the operation's name in, operands out.
#[derive(Debug)]
struct Guard(Arc<Meter>);

impl Object for Guard {
    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let (operation, operands) = arguments.split_last().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
        let operation = operation.as_str().unwrap_or_default();
        self.0.admit(operation, operands)?;
        let plain = |value: &Value| if is_lazy(value, operation) { flat(value) } else { value.clone() };
        Ok(operands.iter().rev().map(plain).collect()) // as they are unpacked
    }
}

/// Whether a value may be a view of others. Views of views take a native stack frame each, and sums of sums double their
/// parts without ever holding an element.
fn is_lazy(value: &Value, operation: &str) -> bool {
    match value.kind() {
        ValueKind::Iterable => true,
        ValueKind::Seq => operation == "+" && !value.is_tuple(),
        _ => false,
    }
}

/// The elements of a sequence as a plain list.
fn flat(sequence: &Value) -> Value {
    sequence.try_iter().into_iter().flatten().collect()
}

/// How many operands an instruction takes from the stack, and what the operation is called; none where nothing is made.
fn operands_of(instruction: &Instruction<'_>) -> Result<Option<(usize, &'static str)>, Error> {
    use Instruction as I;
    let counted = |count: &Option<u16>, name| match count {
        Some(count) => Ok(Some((usize::from(*count), name))),
        None => Err(Error::new(ErrorKind::InvalidOperation, "arguments by * are not supported")),
    };
    match instruction {
        I::Add => Ok(Some((2, "+"))),
        I::Mul => Ok(Some((2, "*"))),
        I::StringConcat => Ok(Some((2, "~"))),
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => Ok(Some((2, "compare"))),
        I::SetAttr(_) => Ok(Some((2, "look"))),
        I::GetItem => Ok(Some((1, "look"))), // the key
        I::Slice => Ok(Some((4, "+"))),
        I::BuildMap(pairs) => Ok(Some((2 * pairs, "[]"))),
        I::BuildList(Some(count)) | I::BuildTuple(Some(count)) => Ok(Some((*count, "[]"))),
        I::PerformTest(_, count, _) => counted(count, "look"),
        I::CallFunction(_, count) | I::CallObject(count) => counted(count, "look"),
        I::ApplyFilter(name, count, _) | I::CallMethod(name, count) => {
            const NAMED: [&str; 10] =
                ["replace", "join", "indent", "list", "split", "splitlines", "lines", "map", "format", "length"];
            counted(count, NAMED.iter().find(|known| known == &name).copied().unwrap_or("call"))
        }
        I::CallBlock(_) | I::LoadBlocks | I::Include(_) | I::FastSuper => {
            Err(Error::new(ErrorKind::InvalidOperation, "blocks and other templates are not supported"))
        }
        _ => Ok(None),
    }
}

/// The same instructions with a guard before each that makes, compares or prints values.
fn guarded<'s>(plain: &Instructions<'s>) -> Result<Instructions<'s>, Error> {
    let all: Vec<&Instruction<'s>> = (0..).map_while(|at| plain.get(at)).collect();
    let mut places = Vec::with_capacity(all.len() + 1);
    let mut length = 0;
    for instruction in &all {
        places.push(length);
        length += match (instruction, operands_of(instruction)?) {
            (Instruction::EmitRaw(_), _) => 2,
            (_, Some((1.., _))) => 4,
            _ => 1,
        };
    }
    places.push(length);
    let moved = |target: u32| places.get(target as usize).copied().unwrap_or(length);
    let mut whole = Instructions::new(plain.name(), plain.source());
    for (at, instruction) in all.into_iter().enumerate() {
        let line = plain.get_line(at as u32).unwrap_or(0) as u16;
        let mut add = |instruction| _ = whole.add_with_line(instruction, line);
        if let Some((count @ 1.., name)) = operands_of(instruction)? {
            add(Instruction::LoadConst(name.into()));
            add(Instruction::CallFunction(GUARD, Some(count as u16 + 1)));
            add(Instruction::UnpackList(count));
        }
        match instruction {
            Instruction::EmitRaw(text) => {
                add(Instruction::LoadConst((*text).into()));
                add(Instruction::Emit); // the formatter counts it
            }
            Instruction::Jump(to) => add(Instruction::Jump(moved(*to))),
            Instruction::JumpIfFalse(to) => add(Instruction::JumpIfFalse(moved(*to))),
            Instruction::JumpIfFalseOrPop(to) => add(Instruction::JumpIfFalseOrPop(moved(*to))),
            Instruction::JumpIfTrueOrPop(to) => add(Instruction::JumpIfTrueOrPop(moved(*to))),
            Instruction::Iterate(to) => add(Instruction::Iterate(moved(*to))),
            Instruction::BuildMacro(name, from, flags) => add(Instruction::BuildMacro(name, moved(*from), *flags)),
            other => add(other.clone()),
        }
    }
    Ok(whole)
}

/// The template with its integers as variables, where it multiplies: the compiler would work out `'x' * 100000000`
/// before any guard could see it.
fn without_folding(source: &str, globals: &mut BTreeMap<String, Value>) -> Option<String> {
    let tokens: Vec<_> = machinery::tokenize(source, false, SYNTAX.clone()).collect::<Result<_, _>>().ok()?;
    if !tokens.iter().any(|(token, _)| matches!(token, Token::Mul | Token::Pow)) {
        return None;
    }
    let mut changed = String::with_capacity(2 * source.len());
    let mut done = 0;
    for (i, (token, span)) in tokens.iter().enumerate() {
        let attribute = i > 0 && matches!(tokens[i - 1].0, Token::Dot);
        if let (Token::Int(value), false) = (token, attribute) {
            let (from, to) = (span.start_offset as usize, span.end_offset as usize);
            changed.push_str(source.get(done..from)?);
            changed.push_str(&format!("integer_{value}"));
            globals.insert(format!("integer_{value}"), Value::from(*value));
            done = to;
        }
    }
    changed.push_str(source.get(done..)?);
    Some(changed)
}

/// Whether `source` is a template at all.
///
/// # Errors
/// What is wrong with its syntax.
pub(super) fn check(source: &str) -> Result<(), Error> {
    let source = without_folding(source, &mut BTreeMap::new()).map_or(Cow::Borrowed(source), Cow::Owned);
    guarded(&compile(&source)?.instructions).map(drop)
}

fn compile(source: &str) -> Result<CompiledTemplate<'_>, Error> {
    let plain = TemplateConfig { syntax_config: SYNTAX.clone(), default_auto_escape: Arc::new(|_| AutoEscape::None) };
    CompiledTemplate::new("chat_template", source, &plain)
}

/// Renders `source` in `environment`, to which the guard is added.
///
/// # Errors
/// What the template itself reports; what it does too much of.
pub(super) fn render(
    mut environment: Environment<'_>,
    source: &str,
    mut globals: BTreeMap<String, Value>,
    meter: &Arc<Meter>,
) -> Result<String, Error> {
    environment.set_fuel(Some(meter.fuel));
    environment.set_recursion_limit(RECURSION);
    environment.add_global(GUARD, Value::from_object(Guard(meter.clone())));
    let source = without_folding(source, &mut globals).map_or(Cow::Borrowed(source), Cow::Owned);
    let instructions = guarded(&compile(&source)?.instructions)?;
    let blocks = BTreeMap::new();
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    machinery::eval(&environment, &instructions, Value::from(globals), &blocks, &mut output, AutoEscape::None)?;
    drop(output);
    Ok(text)
}
