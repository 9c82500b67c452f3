import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.Closeable;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.ErrorMode;
import org.apache.curator.framework.recipes.queue.MultiItem;
import org.apache.curator.framework.recipes.queue.QueueBase;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.state.ConnectionState;

/** The peer's queues, all with a lock path: an item is deleted once its consumer has returned. */
final class Queues {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long LIMIT_SECONDS = 60;

    private final Map<String, Consumer> consumers = new ConcurrentHashMap<>();

    ObjectNode obey(JsonNode command, CuratorFramework client) throws Exception {
        ObjectNode result = JSON.createObjectNode();
        String name = command.path("name").asText();
        switch (command.get("do").asText()) {
            case "queue.put":
                put(command, client);
                return result;
            case "queue.start":
                consumers.put(name, new Consumer(command, client));
                return result;
            case "queue.given":
                consumers.get(name).report(result);
                return result;
            case "queue.idle":
                return result.put("done", consumers.get(name).idle());
            case "queue.proceed":
                consumers.get(name).turns.release(command.get("times").asInt());
                return result;
            case "queue.close":
                consumers.remove(name).close();
                return result;
            case "queue.bench":
                return bench(command, client);
            default:
                throw new IllegalArgumentException("unknown command: " + command);
        }
    }

    /** Put items, each in a node of its own or all in one, and wait until the server has them. */
    private static void put(JsonNode command, CuratorFramework client) throws Exception {
        List<byte[]> items = new ArrayList<>();
        for (JsonNode item : command.get("items")) {
            items.add(Base64.getDecoder().decode(item.asText()));
        }
        try (QueueBase<byte[]> producer = queue(command, client, null)) {
            producer.start();
            if (command.path("together").asBoolean()) {
                put(command, producer, items);
            } else {
                for (byte[] item : items) {
                    put(command, producer, item);
                }
            }
            flush(producer);
        }
    }

    private static void put(JsonNode command, QueueBase<byte[]> queue, byte[] item) throws Exception {
        if (queue instanceof DistributedPriorityQueue) {
            ((DistributedPriorityQueue<byte[]>) queue).put(item, command.get("priority").asInt());
        } else if (queue instanceof DistributedDelayQueue) {
            ((DistributedDelayQueue<byte[]>) queue).put(item, command.get("due").asLong());
        } else {
            ((DistributedQueue<byte[]>) queue).put(item);
        }
    }

    private static void put(JsonNode command, QueueBase<byte[]> queue, List<byte[]> items) throws Exception {
        Iterator<byte[]> rest = items.iterator();
        MultiItem<byte[]> together = () -> rest.hasNext() ? rest.next() : null;
        if (queue instanceof DistributedPriorityQueue) {
            ((DistributedPriorityQueue<byte[]>) queue).putMulti(together, command.get("priority").asInt());
        } else if (queue instanceof DistributedDelayQueue) {
            ((DistributedDelayQueue<byte[]>) queue).putMulti(together, command.get("due").asLong());
        } else {
            ((DistributedQueue<byte[]>) queue).putMulti(together);
        }
    }

    private static void flush(QueueBase<byte[]> producer) throws InterruptedException {
        if (!producer.flushPuts(LIMIT_SECONDS, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the items were not put within " + LIMIT_SECONDS + " s");
        }
    }

    /** Put so many items, and then let one consumer have them: for how long that takes it. */
    private static ObjectNode bench(JsonNode command, CuratorFramework client) throws Exception {
        String path = command.get("path").asText();
        int items = command.get("items").asInt();
        byte[] item = new byte[command.get("size").asInt()];
        try (QueueBase<byte[]> producer = queue(command, client, null)) {
            producer.start();
            for (int number = 0; number < items; number++) {
                put(command, producer, item);
            }
            flush(producer);
        }
        CountDownLatch consumed = new CountDownLatch(items);
        QueueConsumer<byte[]> consumer = new QueueConsumer<>() {
            @Override
            public void consumeMessage(byte[] message) {
                consumed.countDown();
            }

            @Override
            public void stateChanged(CuratorFramework changed, ConnectionState state) {}
        };
        long start = System.nanoTime();
        try (QueueBase<byte[]> queue = queue(command, client, consumer)) {
            queue.start();
            if (!consumed.await(LIMIT_SECONDS, TimeUnit.SECONDS)) {
                throw new IllegalStateException(consumed.getCount() + " items are left after " + LIMIT_SECONDS + " s");
            }
            long end = System.nanoTime();
            while (!client.getChildren().forPath(path).isEmpty()) {
                Thread.onSpinWait(); // the last one is deleted after its consumer has returned
            }
            return JSON.createObjectNode().put("seconds", (end - start) / 1e9);
        }
    }

    private static QueueBase<byte[]> queue(
            JsonNode command, CuratorFramework client, QueueConsumer<byte[]> consumer) {
        return queue(command, builder(command, client, consumer));
    }

    private static QueueBuilder<byte[]> builder(
            JsonNode command, CuratorFramework client, QueueConsumer<byte[]> consumer) {
        String path = command.get("path").asText();
        return QueueBuilder.builder(client, consumer, new Bytes(), path)
                .lockPath(command.path("locks").asText(path + "-locks"));
    }

    private static QueueBase<byte[]> queue(JsonNode command, QueueBuilder<byte[]> builder) {
        switch (command.path("layout").asText("curator")) {
            case "curator":
                return builder.buildQueue();
            case "curator-priority":
                return builder.buildPriorityQueue(command.path("batch").asInt(1));
            case "curator-delay":
                return builder.buildDelayQueue();
            default:
                throw new IllegalArgumentException("unknown layout: " + command);
        }
    }

    /** A started queue that records what it is given. It may fail at first, and wait with each item for its turn. */
    private static final class Consumer implements QueueConsumer<byte[]>, Closeable {
        private static final Set<Thread.State> WAITING = Set.of(Thread.State.WAITING, Thread.State.TIMED_WAITING);

        final Semaphore turns;
        private final CuratorFramework client;
        private final QueueBase<byte[]> queue;
        private final List<Thread> threads = new CopyOnWriteArrayList<>();
        private final AtomicInteger failures;
        private final List<byte[]> given = new ArrayList<>();
        private final List<Long> times = new ArrayList<>();

        Consumer(JsonNode command, CuratorFramework client) throws Exception {
            turns = new Semaphore(command.get("hold").asBoolean() ? 0 : Integer.MAX_VALUE);
            failures = new AtomicInteger(command.get("failures").asInt());
            this.client = client;
            queue = queue(command, builder(command, client, this).threadFactory(this::thread));
            queue.setErrorMode(ErrorMode.REQUEUE);
            queue.start();
        }

        @Override
        public void consumeMessage(byte[] item) throws InterruptedException {
            synchronized (given) {
                given.add(item);
                times.add(System.currentTimeMillis());
            }
            turns.acquire();
            if (failures.getAndDecrement() > 0) {
                throw new IllegalStateException("told to fail");
            }
        }

        @Override
        public void stateChanged(CuratorFramework changed, ConnectionState state) {}

        /** Each item it was given, in order, and when, in milliseconds since 1970. */
        void report(ObjectNode result) {
            ArrayNode items = result.putArray("events");
            ArrayNode moments = result.putArray("values");
            synchronized (given) {
                given.forEach(item -> items.add(Base64.getEncoder().encodeToString(item)));
                times.forEach(moments::add);
            }
        }

        /** Whether it has tried every item that was there when it was asked, and waits for a change. */
        boolean idle() throws Exception {
            for (int trip = 0; trip < 2; trip++) { // behind the watch's event, and behind the listing that it began
                CountDownLatch back = new CountDownLatch(1);
                client.checkExists().inBackground((asked, event) -> back.countDown()).forPath("/");
                back.await();
            }
            for (Thread thread : threads) {
                StackTraceElement[] stack = thread.getStackTrace();
                boolean waits = WAITING.contains(thread.getState());
                if (waits && Arrays.stream(stack).anyMatch(at -> at.getMethodName().equals("blockingNextGetData"))) {
                    return true;
                }
            }
            return false;
        }

        private Thread thread(Runnable body) {
            Thread thread = new Thread(body, "queue");
            thread.setDaemon(true);
            threads.add(thread);
            return thread;
        }

        @Override
        public void close() throws IOException {
            queue.close();
        }
    }

    private static final class Bytes implements QueueSerializer<byte[]> {
        @Override
        public byte[] serialize(byte[] item) {
            return item;
        }

        @Override
        public byte[] deserialize(byte[] bytes) {
            return bytes;
        }
    }
}
