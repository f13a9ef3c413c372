//! What an agent costs: 50 attached VMs on an uplink in a namespace of its own, an agent that reports every second, and changes
//! of all rates at once. Needs root, `ip`, `tc` and `nft`; leaves nothing.
//!
//! ```sh
//! cargo run --release -p vibra-agent --example agent_cost
//! ```

use futures_util::future::join_all;
use std::{
    error::Error,
    fs,
    net::TcpListener,
    process::Command as Process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use vibra_agent::{Agent, AttachedHost, AttachedSettings, AttachedSpec, Machine, MachineSpec, register};
use vibra_client::FakeDirectory;
use vibra_model::{Amount, BytesPerSec, Command, Customer, HostSpec, Resources, VmSpec};

const VMS: u8 = 50;
const SHARE: u64 = 2_000_000;
const TIME: Duration = Duration::from_secs(30);
const ROUNDS: usize = 20;
/// `USER_HZ`, the unit of times in /proc, is 100 on every architecture of today.
const TICK: Duration = Duration::from_millis(10);

fn main() -> Result<(), Box<dyn Error>> {
    let namespace = format!("vibra-cost-{}", std::process::id());
    let _place = Place::make(&namespace)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(namespace))
}

async fn measure(namespace: String) -> Result<(), Box<dyn Error>> {
    // Every VM has to be somewhere: the agent asks whether it serves.
    let server = TcpListener::bind("127.0.0.1:0")?;
    let address = server.local_addr()?.to_string();
    thread::spawn(move || server.incoming().for_each(drop));
    let settings = AttachedSettings { uplink: "up".to_owned(), namespace: Some(namespace), internal: Vec::new() };
    let began = Instant::now();
    let host = AttachedHost::start(settings, (0..VMS).map(|index| spec(index, &address)).collect()).await?;
    println!("{VMS} VMs shaped in {:.1} ms", milliseconds(began.elapsed()));

    let machines = host.machines().to_vec();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let rate = SHARE / 2 + round as u64;
        let began = Instant::now();
        for got in join_all(machines.iter().map(|machine| machine.set(bandwidth(rate)))).await {
            assert_eq!(got?, bandwidth(rate), "what was asked for is in force");
        }
        times.push(began.elapsed());
    }
    times.sort();
    let (median, worst) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    println!(
        "{VMS} rates set and read back: median {:.1} ms, worst {:.1} ms of {ROUNDS}",
        milliseconds(median),
        milliseconds(worst)
    );

    let directory = directory(&machines).await?;
    let agent = Agent::new("h1".parse()?, machines, directory.clone());
    let before = cpu_time()?;
    agent.run(tokio::time::sleep(TIME)).await;
    let used = cpu_time()?.saturating_sub(before);
    let reports = directory.commands().iter().filter(|command| matches!(command, Command::Report(_))).count();
    let share = 100.0 * used.as_secs_f64() / TIME.as_secs_f64();
    println!("{reports} reports in {TIME:?}, directory and children included: {share:.2} % of a core");
    host.release().await?;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn bandwidth(rate: u64) -> Amount {
    Amount::Bandwidth(BytesPerSec(rate))
}

fn spec(index: u8, address: &str) -> AttachedSpec {
    AttachedSpec {
        machine: MachineSpec {
            id: format!("vm{index}").parse().expect("a name"),
            initial: Resources { bandwidth: Some(BytesPerSec(SHARE)), ..Resources::NONE },
        },
        address: address.to_owned(),
        sources: vec![[192, 0, 2, index].into()],
        cgroup: None,
    }
}

/// A directory in memory that knows the VMs.
async fn directory(machines: &[Arc<dyn Machine>]) -> Result<Arc<FakeDirectory>, Box<dyn Error>> {
    let directory = Arc::new(FakeDirectory::new());
    let initial = Resources { bandwidth: Some(BytesPerSec(SHARE)), ..Resources::NONE };
    let bounds = Resources { bandwidth: Some(BytesPerSec(SHARE * u64::from(VMS))), ..Resources::NONE };
    let shop = Customer { id: "shop".parse()?, bounds };
    directory.run(Command::PutCustomer(shop.clone()))?;
    let h1 = HostSpec { id: "h1".parse()?, capacity: Resources::NONE };
    let vms = machines.iter().zip(1..).map(|(machine, order)| VmSpec {
        id: machine.id().clone(),
        customer: shop.id.clone(),
        host: h1.id.clone(),
        address: machine.address().to_owned(),
        order,
        weight: 1,
        floor: Resources::NONE,
        initial,
    });
    register(&*directory, h1.clone(), vms.collect()).await?;
    Ok(directory)
}

/// CPU time of this process and of the children that it waited for.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // After the name, which may hold blanks: the 12th to 15th are user and system time, its own and its children's.
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?.1;
    let times = fields.split_whitespace().skip(11).take(4).map(str::parse::<u32>);
    Ok(TICK * times.sum::<Result<u32, _>>()?)
}

/// A namespace with a device "up".
struct Place(String);

impl Place {
    fn make(name: &str) -> Result<Place, Box<dyn Error>> {
        run(&format!("ip netns add {name}"))?;
        let place = Place(name.to_owned());
        run(&format!("ip -n {name} link add name up type veth peer name down"))?;
        run(&format!("ip -n {name} link set dev up up"))?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = run(&format!("ip netns delete {}", self.0)) {
            eprintln!("{error}");
        }
    }
}

fn run(words: &str) -> Result<(), Box<dyn Error>> {
    let mut words = words.split_whitespace();
    let status = Process::new(words.next().unwrap_or_default()).args(words).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip failed: {status}: are you root?").into()) }
}
