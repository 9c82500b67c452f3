import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.ZooKeeper;

/**
 * Apache Curator at the end of a pipe: one JSON command a line on stdin, one JSON answer a line on stdout.
 *
 * <p>A command is {"id": n, "do": "lock.acquire", ...}; its answer is {"id": n, "ok": {...}} or {"id": n, "error":
 * "..."}. Commands of one handle ("name") run one after another on that handle's own thread, because Curator's locks
 * belong to threads; different handles run side by side, so that answers may come in another order. The process ends
 * when stdin does: it never outlives the program that started it.
 */
public final class CuratorPeer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long CONNECT_LIMIT_SECONDS = 20;

    private final PrintStream out;
    private final Map<String, CuratorFramework> clients = new ConcurrentHashMap<>();
    private final Map<String, ExecutorService> workers = new ConcurrentHashMap<>();
    private final Map<String, Closeable> elections = new ConcurrentHashMap<>();
    private final Map<String, InterProcessMutex> locks = new ConcurrentHashMap<>();
    private final Caches caches = new Caches();
    private final Queues queues = new Queues();

    private CuratorPeer(PrintStream out) {
        this.out = out;
    }

    public static void main(String[] arguments) throws IOException {
        PrintStream answers = System.out;
        System.setOut(System.err); // a library that prints must not write between our answers
        new CuratorPeer(answers).serve();
        Runtime.getRuntime().halt(0); // stdin has ended: no wait for workers that may be blocked
    }

    private void serve() throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonNode command = JSON.readTree(line);
            if (command.path("do").asText().equals("quit")) {
                clients.values().forEach(CuratorFramework::close);
                answer(command, "ok", JSON.createObjectNode());
                return;
            }
            // A question must be answered while the handle's own thread waits in a line.
            String worker = text(command, "thread", text(command, "name", "main"));
            workers.computeIfAbsent(worker, CuratorPeer::thread).execute(() -> run(command));
        }
    }

    private static ExecutorService thread(String name) {
        return Executors.newSingleThreadExecutor(body -> {
            Thread thread = new Thread(body, "peer-" + name);
            thread.setDaemon(true);
            return thread;
        });
    }

    private void run(JsonNode command) {
        try {
            answer(command, "ok", obey(command));
        } catch (Exception | LinkageError error) {
            answer(command, "error", JSON.getNodeFactory().textNode(error.toString()));
        }
    }

    private void answer(JsonNode command, String key, JsonNode value) {
        ObjectNode answer = JSON.createObjectNode();
        answer.set("id", command.get("id"));
        answer.set(key, value);
        synchronized (out) {
            out.println(answer);
            out.flush();
        }
    }

    private ObjectNode obey(JsonNode command) throws Exception {
        ObjectNode result = JSON.createObjectNode();
        String name = text(command, "name", "");
        String path = text(command, "path", "");
        switch (text(command, "do", "")) {
            case "connect":
                CuratorFramework client = connect(command);
                CuratorFramework before = clients.put(text(command, "client", "main"), client);
                if (before != null) {
                    before.close();
                }
                ZooKeeper session = client.getZookeeperClient().getZooKeeper();
                return result.put("session", session.getSessionId()).put("password", session.getSessionPasswd());
            case "disconnect":
                clients.remove(text(command, "client", "main")).close();
                return result;
            case "lock.acquire":
                InterProcessMutex lock = locks.computeIfAbsent(name, key -> mutex(command, path));
                return result.put("acquired", lock.acquire(command.get("timeout_ms").asLong(), TimeUnit.MILLISECONDS));
            case "lock.release":
                locks.remove(name).release();
                return result;
            case "lock.participants":
                return participants(path, command);
            case "latch.start":
                LeaderLatch latch = new LeaderLatch(client(command), path, text(command, "identity", ""));
                elections.put(name, latch);
                latch.start();
                return result;
            case "latch.await":
                return result.put("leads", latch(name).await(command.get("timeout_ms").asLong(), TimeUnit.MILLISECONDS));
            case "latch.leads":
                return result.put("leads", latch(name).hasLeadership());
            case "latch.participants":
                result.set("participants", list(latch(name).getParticipants()));
                return result.put("leader", latch(name).getLeader().getId());
            case "selector.start":
                elections.put(name, new Selector(client(command), path, text(command, "identity", ""),
                        command.path("requeue").asBoolean(false)));
                return result;
            case "selector.await":
                return result.put("leads", selector(name).await(command.get("timeout_ms").asLong()));
            case "selector.leads":
                return result.put("leads", selector(name).selector.hasLeadership());
            case "selector.yield":
                selector(name).end.release();
                return result;
            case "selector.participants":
                result.set("participants", list(selector(name).selector.getParticipants()));
                return result.put("leader", selector(name).selector.getLeader().getId());
            case "election.close":
                elections.remove(name).close();
                return result;
            case "bench.handoffs":
                return handOffs(command, path);
            case "bench.failover":
                return failover(command, path);
            case "counter.long":
            case "counter.int":
            case "counter.next":
            case "counter.shared":
            case "counter.value":
                return Counters.obey(command, client(command));
            case "queue.put":
            case "queue.start":
            case "queue.given":
            case "queue.idle":
            case "queue.proceed":
            case "queue.close":
            case "queue.bench":
                return queues.obey(command, client(command));
            default:
                return caches.obey(command, client(command));
        }
    }

    private static CuratorFramework connect(JsonNode command) throws Exception {
        CuratorFrameworkFactory.Builder builder = CuratorFrameworkFactory.builder()
                .connectString(command.get("hosts").asText())
                .sessionTimeoutMs(command.path("session_ms").asInt(10_000))
                .connectionTimeoutMs((int) TimeUnit.SECONDS.toMillis(CONNECT_LIMIT_SECONDS))
                .ensembleTracker(false) // else it follows the server's own idea of its address
                .retryPolicy(new RetryNTimes(5, 200));
        if (!text(command, "namespace", "").isEmpty()) {
            builder.namespace(text(command, "namespace", ""));
        }
        CuratorFramework client = builder.build();
        client.start();
        if (!client.blockUntilConnected((int) CONNECT_LIMIT_SECONDS, TimeUnit.SECONDS)) {
            client.close();
            throw new IOException("no ZooKeeper at " + command.get("hosts"));
        }
        return client;
    }

    private InterProcessMutex mutex(JsonNode command, String path) {
        String identity = text(command, "identity", "");
        if (identity.isEmpty()) {
            return new InterProcessMutex(client(command), path);
        }
        return new InterProcessMutex(client(command), path) {
            @Override
            protected byte[] getLockNodeBytes() {
                return identity.getBytes(StandardCharsets.UTF_8);
            }
        };
    }

    private ObjectNode participants(String path, JsonNode command) throws Exception {
        ObjectNode result = JSON.createObjectNode();
        ArrayNode nodes = result.putArray("participants");
        for (String node : new InterProcessMutex(client(command), path).getParticipantNodes()) {
            byte[] data = client(command).getData().forPath(node);
            nodes.addObject().put("node", node).put("data", new String(data, StandardCharsets.UTF_8));
        }
        return result;
    }

    private static ArrayNode list(Iterable<Participant> participants) {
        ArrayNode all = JSON.createArrayNode();
        for (Participant one : participants) {
            all.addObject().put("identity", one.getId()).put("leads", one.isLeader());
        }
        return all;
    }

    /** A LeaderSelector whose term lasts until it is told to end, or until Curator interrupts it. */
    private static final class Selector extends LeaderSelectorListenerAdapter implements Closeable {
        final LeaderSelector selector;
        final Semaphore end = new Semaphore(0);
        private final Semaphore terms = new Semaphore(0);

        Selector(CuratorFramework client, String path, String identity, boolean requeue) {
            selector = new LeaderSelector(client, path, this);
            selector.setId(identity);
            if (requeue) {
                selector.autoRequeue();
            }
            selector.start();
        }

        @Override
        public void takeLeadership(CuratorFramework client) throws Exception {
            terms.release();
            end.acquire();
        }

        /** Waits for the start of a term that no earlier call has seen. */
        boolean await(long milliseconds) throws InterruptedException {
            return terms.tryAcquire(milliseconds, TimeUnit.MILLISECONDS);
        }

        @Override
        public void close() {
            selector.close();
        }
    }

    /** Contend with k threads for a time. With "clients": true each has its own connection. */
    private ObjectNode handOffs(JsonNode command, String path) throws Exception {
        int threads = command.get("threads").asInt();
        boolean separate = command.path("clients").asBoolean(false);
        long length = (long) (command.get("seconds").asDouble() * 1e9);
        List<CuratorFramework> own = new ArrayList<>();
        CyclicBarrier line = new CyclicBarrier(threads);
        InterProcessMutex shared = new InterProcessMutex(client(command), path);
        ExecutorService pool = Executors.newFixedThreadPool(threads);
        try {
            List<Future<Long>> runs = new ArrayList<>();
            for (int index = 0; index < threads; index++) {
                if (separate) {
                    own.add(connect(command));
                }
                InterProcessMutex mutex = separate ? new InterProcessMutex(own.get(index), path) : shared;
                runs.add(pool.submit(() -> {
                    line.await();
                    long end = System.nanoTime() + length;
                    long done = 0;
                    while (System.nanoTime() < end) {
                        mutex.acquire();
                        mutex.release();
                        done++;
                    }
                    return done;
                }));
            }
            long total = 0;
            for (Future<Long> run : runs) {
                total += run.get();
            }
            return JSON.createObjectNode().put("handoffs", total);
        } finally {
            pool.shutdownNow();
            own.forEach(CuratorFramework::close);
        }
    }

    /** Two latches with a connection each: how long from the leader's close() until the other leads. */
    private ObjectNode failover(JsonNode command, String path) throws Exception {
        ObjectNode result = JSON.createObjectNode();
        ArrayNode times = result.putArray("seconds");
        List<CuratorFramework> own = List.of(connect(command), connect(command));
        try {
            Watched leader = new Watched(own.get(0), path);
            leader.led.await();
            for (int round = 0; round < command.get("count").asInt(); round++) {
                Watched next = new Watched(own.get((round + 1) % 2), path);
                while (leader.latch.getParticipants().size() < 2) {
                    Thread.onSpinWait();
                }
                long start = System.nanoTime();
                leader.latch.close();
                next.led.await();
                times.add((next.since - start) / 1e9);
                leader = next;
            }
            leader.latch.close();
        } finally {
            own.forEach(CuratorFramework::close);
        }
        return result;
    }

    private static final class Watched implements LeaderLatchListener {
        final CountDownLatch led = new CountDownLatch(1);
        final LeaderLatch latch;
        volatile long since;

        Watched(CuratorFramework client, String path) throws Exception {
            latch = new LeaderLatch(client, path);
            latch.addListener(this);
            latch.start();
        }

        @Override
        public void isLeader() {
            since = System.nanoTime();
            led.countDown();
        }

        @Override
        public void notLeader() {}
    }

    private CuratorFramework client(JsonNode command) {
        CuratorFramework client = clients.get(text(command, "client", "main"));
        if (client == null) {
            throw new IllegalStateException("connect first: " + command);
        }
        return client;
    }

    private LeaderLatch latch(String name) {
        return (LeaderLatch) elections.get(name);
    }

    private Selector selector(String name) {
        return (Selector) elections.get(name);
    }

    private static String text(JsonNode command, String key, String otherwise) {
        return command.path(key).asText(otherwise);
    }
}
