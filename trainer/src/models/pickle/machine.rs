//! The pickle machine: a stack, marks on it, a memo, and the operations that a dictionary of tensors is written in.
//!
//! Dictionaries and lists live in one table each and are named by their number, so that no depth of nesting makes a deep
//! structure, and everything a pickle can ask for is bounded by its own length.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use candle_core::DType;

use super::place::Place;
use super::torch::{self, Storage};
use crate::models::json::one_line;

/// Deepest nesting of tuples.
const DEPTH_LIMIT: usize = 16;
/// Most items on the stack; Python writes dictionaries in batches of a thousand.
const STACK_LIMIT: usize = 1 << 16;
/// What trainers call the model's dictionary among others of a checkpoint, the likeliest first.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// A value on the stack.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Text(Rc<str>),
    Int(i64),
    Bool(bool),
    Tuple(Rc<[Item]>, usize),
    /// Number of a dictionary in the machine's table.
    Dict(usize),
    /// Number of a list in the machine's table.
    List(usize),
    Callable(Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Rc<Place>),
    /// A value of a kind that no tensor depends on.
    Opaque,
}

/// What of a dictionary is kept: its entries under texts.
type Dict = BTreeMap<Rc<str>, Item>;

/// The result of one step of the machine; the error says what is wrong with the pickle.
pub(super) type Step<T> = std::result::Result<T, String>;

/// The machine and the bytes still to read.
pub(super) struct Machine<'a> {
    whole: usize,
    rest: &'a [u8],
    stack: Vec<Item>,
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    dicts: Vec<Dict>,
    lists: Vec<Vec<Rc<str>>>,
    storages: BTreeMap<Rc<str>, DType>,
}

impl<'a> Machine<'a> {
    /// A machine before the first of the pickles in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            whole: bytes.len(),
            rest: bytes,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            dicts: Vec::new(),
            lists: Vec::new(),
            storages: BTreeMap::new(),
        }
    }

    /// Runs one pickle to its end: what it builds.
    pub fn run(&mut self) -> Step<Item> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        while self.step()? {
            if self.stack.len() > STACK_LIMIT || self.marks.len() > STACK_LIMIT {
                return Err(format!("more than {STACK_LIMIT} values at once"));
            }
        }
        self.stack.pop().ok_or_else(|| "it builds nothing".into())
    }

    /// Bytes read so far.
    pub fn consumed(&self) -> usize {
        self.whole - self.rest.len()
    }

    /// The texts in a list.
    pub fn texts(&self, list: usize) -> impl Iterator<Item = &str> {
        self.lists[list].iter().map(|text| &**text)
    }

    /// The type of the storage `key`, if the pickle named it.
    pub fn storage_type(&self, key: &str) -> Option<DType> {
        self.storages.get(key).copied()
    }

    /// What a description of a machine says of its byte order.
    pub fn little_endian(&self, dict: usize) -> Option<bool> {
        match self.dicts[dict].get("little_endian") {
            Some(Item::Bool(little)) => Some(*little),
            _ => None,
        }
    }

    /// The tensors of the dictionary `top`, or of the one in it that has any: checkpoints wrap the model's in others.
    pub fn state_dict(&self, top: Item) -> Step<BTreeMap<Rc<str>, Rc<Place>>> {
        let Item::Dict(top) = top else { return Err("it does not build a dictionary of tensors".into()) };
        let tensors = |dict: &Dict| -> BTreeMap<Rc<str>, Rc<Place>> {
            let tensor = |(name, item): (&Rc<str>, &Item)| match item {
                Item::Tensor(place) => Some((name.clone(), place.clone())),
                _ => None,
            };
            dict.iter().filter_map(tensor).collect()
        };
        let own = tensors(&self.dicts[top]);
        if !own.is_empty() {
            return Ok(own);
        }
        let inner = self.dicts[top].iter().filter_map(|(name, item)| match item {
            Item::Dict(dict) => Some((name, tensors(&self.dicts[*dict]))).filter(|(_, found)| !found.is_empty()),
            _ => None,
        });
        let mut inner: BTreeMap<&Rc<str>, _> = inner.collect();
        let known = WRAPPERS.iter().find_map(|name| inner.remove(&Rc::from(*name)));
        match (known, inner.len()) {
            (Some(found), _) => Ok(found),
            (None, 0 | 1) => Ok(inner.into_values().next().unwrap_or_default()),
            (None, _) => {
                let names: Vec<String> = inner.keys().map(|name| one_line(name)).collect();
                let what = format!("several dictionaries of tensors ({})", names.join(", "));
                Err(format!("{} (expected one, or one named {})", one_line(&what), WRAPPERS.join(", ")))
            }
        }
    }

    fn bytes(&mut self, n: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of `n` bytes, the lowest first.
    fn number(&mut self, n: usize) -> Step<u64> {
        Ok(self.bytes(n)?.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
    }

    /// A text after its length, itself a number of `n` bytes.
    fn text(&mut self, n: usize) -> Step<Rc<str>> {
        let length = usize::try_from(self.number(n)?).map_err(|_| "it ends too early")?;
        Ok(std::str::from_utf8(self.bytes(length)?).map_err(|_| "a string that is not UTF-8")?.into())
    }

    fn line(&mut self) -> Step<&'a str> {
        let n = self.rest.iter().position(|&b| b == b'\n').ok_or("it ends too early")?;
        let line = std::str::from_utf8(self.bytes(n)?).map_err(|_| "a name that is not UTF-8")?;
        self.bytes(1)?;
        Ok(line)
    }

    fn pop(&mut self) -> Step<Item> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| "its stack is empty".into()),
            false => Err("its stack is empty".into()),
        }
    }

    fn since_mark(&mut self) -> Step<Vec<Item>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn push_tuple(&mut self, items: Vec<Item>) -> Step<()> {
        let depth = items.iter().map(|i| if let Item::Tuple(_, d) = i { d + 1 } else { 1 }).max().unwrap_or(1);
        if depth > DEPTH_LIMIT {
            return Err(format!("tuples nested more than {DEPTH_LIMIT} deep"));
        }
        self.stack.push(Item::Tuple(items.into(), depth));
        Ok(())
    }

    fn last_tuple(&mut self, n: usize) -> Step<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        items.reverse();
        self.push_tuple(items)
    }

    fn remember(&mut self, key: u32) -> Step<()> {
        let top = self.stack.last().cloned().ok_or("its stack is empty")?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let item = self.memo.get(&key).cloned().ok_or("it recalls what it never stored")?;
        self.stack.push(item);
        Ok(())
    }

    fn push_dict(&mut self) -> Item {
        self.dicts.push(Dict::new());
        Item::Dict(self.dicts.len() - 1)
    }

    /// Executes one operation; false at the end.
    fn step(&mut self) -> Step<bool> {
        let op = self.bytes(1)?[0];
        match op {
            0x80 => drop(self.bytes(1)?),
            0x95 => drop(self.bytes(8)?),
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_tuple(Vec::new())?,
            b't' => {
                let items = self.since_mark()?;
                self.push_tuple(items)?;
            }
            0x85..=0x87 => self.last_tuple(usize::from(op - 0x84))?,
            b'}' => {
                let dict = self.push_dict();
                self.stack.push(dict);
            }
            b']' => {
                self.lists.push(Vec::new());
                self.stack.push(Item::List(self.lists.len() - 1));
            }
            b'N' => self.stack.push(Item::Opaque),
            0x88 | 0x89 => self.stack.push(Item::Bool(op == 0x88)),
            b'G' => {
                self.bytes(8)?;
                self.stack.push(Item::Opaque);
            }
            b'K' => self.push_int(1, false)?,
            b'M' => self.push_int(2, false)?,
            b'J' => self.push_int(4, true)?,
            0x8a => {
                let n = self.number(1)? as usize;
                self.push_int(n, true)?;
            }
            b'X' | b'T' => self.push_text(4)?,
            0x8c | b'U' => self.push_text(1)?,
            0x8d => self.push_text(8)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Item::Callable(format!("{module}.{name}").into()));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Item::Text(name), Item::Text(module)) => {
                    self.stack.push(Item::Callable(format!("{module}.{name}").into()));
                }
                _ => return Err("a name that is not text".into()),
            },
            b'q' => {
                let key = self.number(1)? as u32;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number(4)? as u32;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let key = self.number(1)? as u32;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number(4)? as u32;
                self.recall(key)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = torch::storage(&id)?;
                self.storages.insert(storage.key.clone(), storage.dtype);
                self.stack.push(Item::Storage(storage.into()));
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let (Item::Callable(name), Item::Tuple(arguments, _)) = (callable, arguments) else {
                    return Err("a call of what cannot be called".into());
                };
                let made = self.call(&name, &arguments)?;
                self.stack.push(made);
            }
            // State set on an object: transformers' `_metadata`, of no use here.
            b'b' => drop(self.pop()?),
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(items)?;
            }
            other => return Err(format!("operation {other:#04x} is refused")),
        }
        Ok(true)
    }

    fn push_text(&mut self, n: usize) -> Step<()> {
        let text = self.text(n)?;
        self.stack.push(Item::Text(text));
        Ok(())
    }

    /// A number of `n` bytes; longer ones than 8 stand for no size and are not kept.
    fn push_int(&mut self, n: usize, signed: bool) -> Step<()> {
        if n > 8 {
            self.bytes(n)?;
            self.stack.push(Item::Opaque);
            return Ok(());
        }
        let value = self.number(n)?;
        let unused = 64 - 8 * n as u32;
        let value = match (signed, n) {
            (_, 0) => 0,
            (true, _) => (value << unused) as i64 >> unused,
            (false, _) => value as i64,
        };
        self.stack.push(Item::Int(value));
        Ok(())
    }

    /// Appends to the list on top, of which only texts are kept.
    fn extend(&mut self, items: Vec<Item>) -> Step<()> {
        let Some(Item::List(list)) = self.stack.last() else { return Err("items appended to what is no list".into()) };
        let text = |item| if let Item::Text(text) = item { Some(text) } else { None };
        self.lists[*list].extend(items.into_iter().filter_map(text));
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Item>) -> Step<()> {
        let Some(Item::Dict(dict)) = self.stack.last() else { return Err("items set on what is no dictionary".into()) };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if let (Item::Text(name), Item::Tensor(_) | Item::Dict(_) | Item::Bool(_)) = (key, &value) {
                self.dicts[*dict].insert(name, value);
            }
        }
        Ok(())
    }

    /// The few calls a state dict is made of.
    fn call(&mut self, name: &str, arguments: &[Item]) -> Step<Item> {
        match (name, arguments) {
            ("collections.OrderedDict", []) => Ok(self.push_dict()),
            // A parameter of a class of its own: (how it is rebuilt, class, arguments, state).
            ("torch._tensor._rebuild_from_type_v2", [Item::Callable(inner), _, Item::Tuple(arguments, _), ..])
                if **inner != *name =>
            {
                self.call(inner, arguments)
            }
            _ => torch::call(name, arguments),
        }
    }
}
