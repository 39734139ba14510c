//! The tokens of the security layer and the key files.

use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{AccountRecord, DeviceRecord, Directory, IdentityRecord, Profile, Unreadable};
use relay_core::security::{
    ClientCredentials, Layer, RegisterContext, RelayKeys, RelayPublicKeys, answer_attach, answer_connect,
    answer_register, busy_response, hello, hello_without_key, read_answer_without_key,
    read_register_response, register_device_account,
};
use relay_core::time::Entropy;
use std::sync::OnceLock;

const LAYERS: [Layer; 2] = [Layer::Device, Layer::Account];
const PROFILES: [Profile; 2] = [Profile::Modern, Profile::Legacy];

/// Bytes that are always the same, so that a find repeats itself.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(181).wrapping_add(7);
            *byte = self.0;
        }
    }
}

/// A directory without anybody.
struct Nobody;

impl Directory for Nobody {
    fn device(&self, _: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        Ok(None)
    }

    fn account(&self, _: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        Ok(None)
    }

    fn identity(&self, _: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        Ok(None)
    }
}

fn keys() -> &'static RelayKeys {
    static KEYS: OnceLock<RelayKeys> = OnceLock::new();
    KEYS.get_or_init(|| RelayKeys::generate(&mut Fixed(1)))
}

fn credentials() -> &'static ClientCredentials {
    static CREDENTIALS: OnceLock<ClientCredentials> = OnceLock::new();
    CREDENTIALS.get_or_init(|| ClientCredentials::generate(Profile::Modern, &mut Fixed(2)))
}

fn urls() -> (DeviceUrl, AccountUrl) {
    let device = DeviceUrl::new("dpp://device").expect("a URL");
    (device, AccountUrl::new("grooveAccount://a@").expect("a URL"))
}

/// Hellos of both layers and profiles, and key files.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![keys().encode().to_vec(), keys().public().encode(), credentials().encode().to_vec()];
    for layer in LAYERS {
        seeds.extend(PROFILES.map(|profile| hello_without_key(layer, profile).to_vec()));
        seeds.push(hello(layer, "dpp://device", credentials(), &mut Fixed(3)).token.to_vec());
    }
    let (device, account) = urls();
    let own = credentials();
    let register =
        register_device_account(&device, own, &account, own, keys().public(), b"token", &mut Fixed(5));
    seeds.push(register.expect("keys of one profile").to_vec());
    seeds.extend((0..16u8).map(|id| [&[id, 2, 0][..], &[0; 80]].concat()));
    seeds
}

/// Every reader takes it.
pub(crate) fn run(data: &[u8]) {
    let (device, account) = urls();
    let registered = Some(credentials().as_registered());
    let device_record =
        DeviceRecord { credentials: registered.clone(), accounts: vec![account.clone()], locked_out: false };
    let account_record = AccountRecord { credentials: registered, ..AccountRecord::default() };
    let entropy = &mut Fixed(4);
    drop(answer_connect(data, &device, Some(&device_record), entropy));
    drop(answer_connect(data, &device, None, entropy));
    drop(answer_attach(data, &account, Some(&account_record), entropy));
    let context = RegisterContext {
        keys: keys(),
        device: &device,
        account: &account,
        directory: &Nobody,
        pre_authentication_required: false,
    };
    drop(answer_register(data, &context));
    drop(busy_response(data));
    let _status = read_register_response(data);
    for (layer, profile) in LAYERS.into_iter().flat_map(|layer| PROFILES.map(|profile| (layer, profile))) {
        drop(read_answer_without_key(layer, profile, data));
    }
    drop(RelayKeys::decode(data));
    drop(RelayPublicKeys::decode(data));
    drop(ClientCredentials::decode(data));
}
