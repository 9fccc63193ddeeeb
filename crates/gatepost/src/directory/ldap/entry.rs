//! From an LDAP entry to an account.

use ldap3::SearchEntry;

use crate::config::{self, LdapFields, LdapVerify};
use crate::directory::{Bar, Entry, KeptSecret, Location, fields};

/// Active Directory's attribute of flags, and the one that says that the account is disabled.
const ACCOUNT_CONTROL: &str = "userAccountControl";
const ACCOUNT_DISABLED: u32 = 0x2;

fn named(fields: &LdapFields) -> impl Iterator<Item = &String> {
    let LdapFields { backend, password, disabled, held, services, networks, login, login_password, name } = fields;
    [backend, password, disabled, held, services, networks, login, login_password, name].into_iter().flatten()
}

/// Whether anything is read from an entry.
pub(super) fn is_read(fields: &LdapFields) -> bool {
    named(fields).next().is_some()
}

/// The attributes that an account is read from.
pub(super) fn attributes(fields: &LdapFields) -> Vec<String> {
    let mut attributes: Vec<_> = named(fields).cloned().collect();
    if attributes.is_empty() {
        // RFC 4511, section 4.5.1.8: none, rather than all.
        attributes.push("1.1".to_owned());
    }
    attributes
}

/// Makes an account of an entry. An error says what of it makes no sense.
pub(super) fn read(entry: &SearchEntry, settings: &config::Ldap) -> Result<Entry, String> {
    let wanted = &settings.fields;
    let list = |name: &Option<String>| all(entry, name.as_ref()).iter().map(String::as_str);
    let is_set = |name: &Option<String>| match name {
        Some(name) => Ok::<_, String>(one(entry, Some(name))?.is_some_and(|value| means_yes(name, value))),
        None => Ok(false),
    };
    let password = match settings.verify {
        LdapVerify::Compare => hash_of(all(entry, settings.fields.password.as_ref()), settings.cleartext)?,
        LdapVerify::Bind => None,
    };
    let login_password = one(entry, wanted.login_password.as_ref())?;
    Ok(Entry {
        place: one(entry, wanted.backend.as_ref())?.map(Location::from),
        password: password.map(KeptSecret::new),
        barred: is_set(&wanted.disabled)?.then_some(Bar::Disabled),
        held: is_set(&wanted.held)?,
        networks: fields::networks(list(&wanted.networks))?,
        services: wanted.services.is_some().then(|| fields::services(list(&wanted.services))),
        name: one(entry, wanted.name.as_ref())?.map(str::to_owned),
        login: one(entry, wanted.login.as_ref())?.map(str::to_owned),
        login_password: login_password.map(KeptSecret::new),
    })
}

/// All values of an attribute. Servers write names in their own case.
fn all<'e>(entry: &'e SearchEntry, name: Option<&String>) -> &'e [String] {
    let found = name.and_then(|name| entry.attrs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)));
    found.map_or(&[], |(_, values)| values)
}

/// The value of an attribute that may have only one.
fn one<'e>(entry: &'e SearchEntry, name: Option<&String>) -> Result<Option<&'e str>, String> {
    match all(entry, name) {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(format!("{} has several values, and only one makes sense", name.map_or("", String::as_str))),
    }
}

/// The hash that a password is compared with; of several, a verifier for SCRAM, which serves for both, else the first by
/// which whoever reads it can tell: `{SASL}` only names somebody else to ask. `cleartext`: the password itself will do.
fn hash_of(values: &[String], cleartext: bool) -> Result<Option<String>, String> {
    let (mut in_clear, mut elsewhere) = (false, None);
    // As `{SCRAM-SHA-256}…`, or as RFC 5803 writes it.
    let is_verifier = |value: &&String| {
        let begins = |start: &str| value.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
        begins("{SCRAM-SHA-256}") || begins("SCRAM-SHA-256$")
    };
    if let Some(verifier) = values.iter().find(is_verifier) {
        return Ok(Some(verifier.clone()));
    }
    for value in values {
        let scheme = value.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(scheme, _)| scheme);
        match scheme.map(str::to_ascii_uppercase).as_deref() {
            None if value.starts_with('$') => return Ok(Some(value.clone())),
            None if cleartext => return Ok(Some(format!("{{PLAIN}}{value}"))),
            None | Some("PLAIN" | "CLEAR" | "CLEARTEXT") if !cleartext => in_clear = true,
            Some("SASL") => elsewhere = Some(value.clone()),
            _ => return Ok(Some(value.clone())),
        }
    }
    if in_clear {
        return Err("its password is kept in clear, which only cleartext = true allows".into());
    }
    Ok(elsewhere)
}

/// Whether a value means that the account is disabled, or held. What is not known to mean the contrary does.
fn means_yes(attribute: &str, value: &str) -> bool {
    if attribute.eq_ignore_ascii_case(ACCOUNT_CONTROL)
        && let Ok(flags) = value.parse::<u32>()
    {
        return flags & ACCOUNT_DISABLED != 0;
    }
    !["", "0", "false", "no", "n", "off", "active", "enabled"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_one_value_has_one() {
        let attrs =
            [("MailHost".to_owned(), vec!["a".to_owned()]), ("x".to_owned(), vec!["a".into(), "b".into()])].into();
        let entry = SearchEntry { dn: "uid=kim".into(), attrs, bin_attrs: std::collections::HashMap::default() };
        assert_eq!(one(&entry, Some(&"mailHost".into())), Ok(Some("a")), "in whatever case");
        assert_eq!(one(&entry, Some(&"none".into())), Ok(None));
        assert!(one(&entry, Some(&"x".into())).is_err_and(|what| what.contains("several values")));
    }

    #[test]
    fn of_several_passwords_the_one_that_can_be_compared_with_is_taken() {
        let hash = |values: &[&str], cleartext| {
            let values: Vec<_> = values.iter().map(|&value| value.to_owned()).collect();
            hash_of(&values, cleartext)
        };
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(hash(&["{SASL}kim@REALM", "{SSHA}x"], false), some("{SSHA}x"));
        assert_eq!(hash(&["{SASL}kim@REALM"], false), some("{SASL}kim@REALM"), "which says why it can't be");
        assert_eq!(hash(&["{SSHA}x", "{scram-sha-256}y"], false), some("{scram-sha-256}y"));
        assert_eq!(hash(&["secret", "$6$x"], false), some("$6$x"));
        assert_eq!(hash(&["secret"], true), some("{PLAIN}secret"));
        assert!(hash(&["secret"], false).is_err() && hash(&["{CLEAR}secret"], false).is_err());
        assert_eq!(hash(&[], false), Ok(None));
    }

    #[test]
    fn what_means_disabled() {
        for (attribute, value, expected) in [
            ("userAccountControl", "512", false),
            ("useraccountcontrol", "514", true),
            ("nsAccountLock", "TRUE", true),
            ("nsAccountLock", "false", false),
            ("accountStatus", "active", false),
            ("accountStatus", "noaccess", true),
        ] {
            assert_eq!(means_yes(attribute, value), expected, "{attribute}={value}");
        }
    }
}
