//! Which parts of a model an adapter touches: peft's rules for names, patterns and layers.

use std::collections::{BTreeMap, BTreeSet};

use fancy_regex::{Regex, RegexBuilder};

use super::super::config::{DecoderConfig, Family};
use super::super::json::one_line;
use super::super::parameters::parameters;
use super::LoraConfig;

/// What is wrong with a setting: its name, and what.
pub(super) type Fault = (String, String);

/// Steps a pattern with look-around or back-references may take on one name.
const PATIENCE: usize = 100_000;
/// Bytes a compiled pattern may take.
const LARGEST: usize = 1 << 20;

/// Names of modules, as `target_modules` gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modules {
    /// Those that peft takes for the family where nothing is said.
    Default,
    /// Every linear map but the output head (`all-linear`).
    AllLinear,
    /// Modules of these names, or whose names end in one of them after a dot.
    Named(Vec<String>),
    /// Modules whose whole name matches the regular expression.
    Pattern(String),
}

/// Peft's choice for a family: the query-key-value projection of GPT-NeoX, queries and values of the others.
pub fn default_targets(family: Family) -> &'static [&'static str] {
    match family {
        Family::NeoX => &["query_key_value"],
        _ => &["q_proj", "v_proj"],
    }
}

/// One adapted linear map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// Rank of the correction.
    pub rank: usize,
    /// What its product is multiplied by.
    pub scaling: f64,
    /// `[outputs, inputs]` of the map.
    pub shape: [usize; 2],
}

/// What an adapter consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The adapted maps by name.
    pub adapted: BTreeMap<String, Planned>,
    /// Parameters of which there is a trained copy, with their shapes.
    pub saved: BTreeMap<String, Vec<usize>>,
}

/// Modules of a decoder: its linear maps, and the rest.
struct Known {
    linear: BTreeMap<String, [usize; 2]>,
    others: BTreeSet<String>,
    head: &'static str,
}

impl Known {
    fn of(config: &DecoderConfig) -> Self {
        let names = config.family.names();
        let head = names.head.trim_end_matches(".weight");
        let mut known = Self { linear: BTreeMap::new(), others: BTreeSet::new(), head };
        let embedding = format!("{}.{}", names.trunk, names.embedding);
        for (name, shape) in parameters(config, names.trunk, true) {
            let Some((module, _)) = name.rsplit_once('.') else { continue };
            match shape[..] {
                [outputs, inputs] if module != embedding => drop(known.linear.insert(module.into(), [outputs, inputs])),
                _ => drop(known.others.insert(module.into())),
            }
            let dots = module.match_indices('.');
            known.others.extend(dots.map(|(at, _)| module[..at].to_string()));
        }
        known.others.retain(|module| !known.linear.contains_key(module)); // biases came before their weights
        if config.tied_head {
            known.others.insert(head.into());
        }
        known
    }
}

fn names(names: &[String]) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

/// Whether `module` is one of `names` or ends in one after a dot.
fn is_named(names: &BTreeSet<&str>, module: &str) -> bool {
    names.contains(module) || module.match_indices('.').any(|(at, _)| names.contains(&module[at + 1..]))
}

/// Patterns of one setting.
struct Patterns {
    field: String,
    all: Vec<Regex>,
}

impl Patterns {
    /// `frame` puts a pattern into its place in an expression for the whole name.
    fn new<'a>(
        field: &str,
        patterns: impl ExactSizeIterator<Item = &'a str>,
        most: usize,
        frame: impl Fn(&str) -> String,
    ) -> Result<Self, Fault> {
        if patterns.len() > most {
            return Err((field.into(), format!("{} patterns for {most} modules", patterns.len())));
        }
        let compile = |pattern: &str| {
            RegexBuilder::new(&frame(pattern)).backtrack_limit(PATIENCE).delegate_size_limit(LARGEST).build().map_err(
                |_| {
                    (
                        field.to_string(),
                        format!("{:?} is not a pattern (expected a regular expression)", one_line(pattern)),
                    )
                },
            )
        };
        Ok(Self { field: field.into(), all: patterns.map(compile).collect::<Result<_, _>>()? })
    }

    /// The number of the first that matches, and its first group.
    fn first<'t>(&self, module: &'t str) -> Result<Option<(usize, Option<&'t str>)>, Fault> {
        for (i, pattern) in self.all.iter().enumerate() {
            let found = pattern.captures(module);
            let found = found.map_err(|_| (self.field.clone(), format!("takes too long to match {module}")))?;
            if let Some(captures) = found {
                return Ok(Some((i, captures.get(1).map(|group| group.as_str()))));
            }
        }
        Ok(None)
    }
}

/// A test of names.
enum Chosen<'a> {
    Names(BTreeSet<&'a str>),
    Pattern(Patterns),
    Linear,
}

impl<'a> Chosen<'a> {
    fn new(modules: &'a Modules, field: &str, family: Family) -> Result<Self, Fault> {
        Ok(match modules {
            Modules::Default => Self::Names(default_targets(family).iter().copied().collect()),
            Modules::AllLinear => Self::Linear,
            Modules::Named(all) => Self::Names(names(all)),
            Modules::Pattern(pattern) => {
                let whole = |pattern: &str| format!(r"\A(?:{pattern})\z");
                Self::Pattern(Patterns::new(field, [pattern.as_str()].into_iter(), 1, whole)?)
            }
        })
    }

    fn has(&self, module: &str, known: &Known) -> Result<bool, Fault> {
        match self {
            Self::Names(names) => Ok(is_named(names, module)),
            Self::Pattern(pattern) => Ok(pattern.first(module)?.is_some()),
            Self::Linear => Ok(known.linear.contains_key(module) && module != known.head),
        }
    }
}

impl LoraConfig {
    /// What an adapter of these settings consists of beside a model of `config`.
    pub(super) fn plan(&self, config: &DecoderConfig) -> Result<Plan, Fault> {
        let known = Known::of(config);
        let saved = self.saved(config, &known)?;
        let targets = Chosen::new(&self.targets, "target_modules", config.family)?;
        let exclude = self.exclude.as_ref().map(|e| Chosen::new(e, "exclude_modules", config.family)).transpose()?;
        let layers = self.layer_patterns(known.linear.len())?;
        let most = known.linear.len();
        let whole = |pattern: &str| format!(r"\A(?:.*\.)?(?:{pattern})\z");
        let keys = |patterns: &[(String, f64)]| patterns.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let (ranks, alphas) = (keys(&self.rank_pattern), keys(&self.alpha_pattern));
        let ranks = Patterns::new("rank_pattern", ranks.iter().map(String::as_str), most, whole)?;
        let alphas = Patterns::new("alpha_pattern", alphas.iter().map(String::as_str), most, whole)?;
        let copied = names(&self.modules_to_save);
        let within_copied = |module: &str| is_named(&copied, module) || ancestors(module).any(|m| is_named(&copied, m));
        let chosen = |module: &str| -> Result<bool, Fault> {
            if !targets.has(module, &known)? || within_copied(module) {
                return Ok(false);
            }
            if let Some(exclude) = &exclude
                && exclude.has(module, &known)?
            {
                return Ok(false);
            }
            match &self.layers {
                None => Ok(true),
                Some(wanted) => Ok(layer_of(module, &layers)?.is_some_and(|layer| wanted.contains(&layer))),
            }
        };
        for module in &known.others {
            if chosen(module)? {
                return Err(("target_modules".into(), format!("{module} is no linear map that can be adapted")));
            }
        }
        let mut adapted = BTreeMap::new();
        for (module, &shape) in &known.linear {
            if !chosen(module)? {
                continue;
            }
            let rank = ranks.first(module)?.map_or(self.rank, |(i, _)| self.rank_pattern[i].1 as usize);
            let alpha = alphas.first(module)?.map_or(self.alpha, |(i, _)| self.alpha_pattern[i].1);
            adapted.insert(module.clone(), Planned { rank, scaling: self.scaling_of(rank, alpha), shape });
        }
        if adapted.is_empty() {
            let example = known.linear.keys().next().map_or("", String::as_str);
            let what = format!("no linear map of the model is meant (it has {example}, for one)");
            return Err(("target_modules".into(), what));
        }
        Ok(Plan { adapted, saved })
    }

    /// What corrections are multiplied by where no pattern says otherwise.
    pub fn scaling(&self) -> f64 {
        self.scaling_of(self.rank, self.alpha)
    }

    /// `alpha / rank`, or `alpha / sqrt(rank)` (rank-stabilised: Kalajdzievski, arXiv 2312.03732).
    fn scaling_of(&self, rank: usize, alpha: f64) -> f64 {
        let rank = rank as f64;
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// The expressions that find a module's layer number.
    fn layer_patterns(&self, most: usize) -> Result<Patterns, Fault> {
        let pattern = |name: &str| format!(r"\A.*\.(?:{name})\.(\d+)\.");
        match self.layers_pattern.as_slice() {
            [] => Patterns::new("layers_pattern", ["[^.]*"].into_iter(), 1, pattern),
            names => Patterns::new("layers_pattern", names.iter().map(String::as_str), most, pattern),
        }
    }

    /// Parameters of the modules to save whole.
    fn saved(&self, config: &DecoderConfig, known: &Known) -> Result<BTreeMap<String, Vec<usize>>, Fault> {
        let wanted = names(&self.modules_to_save);
        let fault = |what: String| ("modules_to_save".to_string(), what);
        let mut all = parameters(config, config.family.names().trunk, true);
        all.retain(|name, _| ancestors(name).any(|module| is_named(&wanted, module)));
        let embedding = format!("{}.{}.", config.family.names().trunk, config.family.names().embedding);
        let tied = config.tied_head && (all.keys().any(|n| n.starts_with(&embedding)) || is_named(&wanted, known.head));
        if tied {
            return Err(fault("a copy of a head that is the embedding is not supported (tie_word_embeddings)".into()));
        }
        let unknown = |name: &&str| !all.keys().any(|n| ancestors(n).any(|m| is_named(&BTreeSet::from([*name]), m)));
        match wanted.iter().copied().find(unknown) {
            Some(name) => Err(fault(format!("{:?} is no module of the model", one_line(name)))),
            None => Ok(all),
        }
    }
}

/// The modules around a parameter or module, the outermost first.
fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[..at])
}

fn layer_of(module: &str, layers: &Patterns) -> Result<Option<usize>, Fault> {
    let number = layers.first(module)?.and_then(|(_, group)| group);
    Ok(number.and_then(|digits| digits.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(edit: impl Fn(&mut LoraConfig)) -> Result<Vec<String>, Fault> {
        let mut lora = LoraConfig::new(2, 4.0);
        edit(&mut lora);
        let config = DecoderConfig::neox(16, 8, 3, 2, 32);
        lora.plan(&config).map(|plan| plan.adapted.keys().map(|m| m.replace("gpt_neox.layers.", "")).collect())
    }

    fn named(names: &[&str]) -> Modules {
        Modules::Named(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn names_patterns_and_layers_choose_what_peft_chooses() {
        let qkv = ["0", "1", "2"].map(|layer| format!("{layer}.attention.query_key_value"));
        assert_eq!(planned(|_| ()).unwrap(), qkv);
        assert_eq!(planned(|l| l.targets = Modules::AllLinear).unwrap().len(), 12);
        // a name's end counts after a dot alone: dense is not dense_h_to_4h
        assert_eq!(planned(|l| l.targets = named(&["dense"])).unwrap().len(), 3);
        assert_eq!(planned(|l| l.targets = named(&["layers.1.attention.dense"])).unwrap(), ["1.attention.dense"]);
        // the head only where it is asked for
        assert_eq!(planned(|l| l.targets = named(&["embed_out"])).unwrap(), ["embed_out"]);
        let pattern = |text: &str| Modules::Pattern(text.into());
        assert_eq!(planned(|l| l.targets = pattern(r".*\.[02]\..*(?<!h)\.dense")).unwrap().len(), 2);
        assert_eq!(planned(|l| l.targets = pattern("query_key_value")).unwrap_err().0, "target_modules");
        let last = |l: &mut LoraConfig| l.layers = Some(vec![2, 9]);
        assert_eq!(planned(last).unwrap(), qkv[2..]);
        let named_layers = |l: &mut LoraConfig| (last(l), l.layers_pattern = vec!["layers".into()]).1;
        assert_eq!(planned(named_layers).unwrap(), qkv[2..]);
        let elsewhere = |l: &mut LoraConfig| (last(l), l.layers_pattern = vec!["h".into()]).1;
        assert!(planned(elsewhere).is_err());
        let without = |l: &mut LoraConfig| (l.targets = Modules::AllLinear, l.exclude = Some(named(&["0.mlp"]))).1;
        assert_eq!(planned(without).unwrap().len(), 12); // a module, not what is inside
        let without =
            |l: &mut LoraConfig| (l.targets = Modules::AllLinear, l.exclude = Some(pattern(r".*\.mlp\..*"))).1;
        assert_eq!(planned(without).unwrap().len(), 6);
    }

    #[test]
    fn ranks_and_alphas_follow_the_first_pattern_that_fits() {
        let mut lora = LoraConfig::new(4, 6.0);
        lora.rank_pattern = vec![(r"layers\.0\..*".into(), 9.0), ("query_key_value".into(), 2.0)];
        lora.alpha_pattern = vec![("query_key_value".into(), 3.0)];
        let plan = |lora: &LoraConfig| lora.plan(&DecoderConfig::neox(16, 8, 2, 2, 32)).unwrap().adapted;
        let of = |lora: &LoraConfig| plan(lora).values().map(|p| (p.rank, p.scaling)).collect::<Vec<_>>();
        assert_eq!(of(&lora), [(9, 3.0 / 9.0), (2, 1.5)]);
        lora.rank_stabilised = true;
        assert_eq!(of(&lora), [(9, 1.0), (2, 3.0 / 2f64.sqrt())]);
    }

    #[test]
    fn what_cannot_be_adapted_is_named() {
        for (edit, field, part) in [
            (named(&["nothing"]), "target_modules", "no linear map of the model is meant"),
            (named(&["embed_in"]), "target_modules", "gpt_neox.embed_in is no linear map"),
            (named(&["mlp"]), "target_modules", "gpt_neox.layers.0.mlp is no linear map"),
            (Modules::Pattern("(".into()), "target_modules", "is not a pattern"),
            (Modules::Pattern("((a{99}){99}){99}".into()), "target_modules", "is not a pattern"),
            (Modules::Pattern(r"(?:(?=(.|..|...)+)[\w.]+)+\1#".into()), "target_modules", "takes too long"),
        ] {
            let (at, what) = planned(|l| l.targets = edit.clone()).unwrap_err();
            assert!(at == field && what.contains(part), "{edit:?}: {at}: {what}");
        }
        let saved = |names: &[&str], tied| {
            let mut lora = LoraConfig::new(2, 4.0);
            lora.modules_to_save = names.iter().map(|n| n.to_string()).collect();
            let config = DecoderConfig { tied_head: tied, ..DecoderConfig::neox(16, 8, 1, 2, 32) };
            lora.plan(&config)
        };
        let plan = saved(&["embed_out", "layers.0.mlp"], false).unwrap();
        assert_eq!(plan.saved.len(), 5);
        assert!(saved(&["embed_out"], true).unwrap_err().1.contains("tie_word_embeddings"));
        assert!(saved(&["score"], false).unwrap_err().1.contains("\"score\" is no module"));
    }
}
