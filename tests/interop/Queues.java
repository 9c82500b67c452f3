import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.state.ConnectionState;

/** The peer's DistributedQueue with a lock path: an item is deleted once its consumer has returned. */
final class Queues {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long LIMIT_SECONDS = 60;

    private Queues() {}

    /** Put so many items, and then let one consumer have them: for how long that takes it. */
    static ObjectNode bench(JsonNode command, CuratorFramework client, String path) throws Exception {
        int items = command.get("items").asInt();
        byte[] item = new byte[command.get("size").asInt()];
        try (DistributedQueue<byte[]> producer = queue(client, null, path)) {
            producer.start();
            for (int number = 0; number < items; number++) {
                producer.put(item);
            }
            if (!producer.flushPuts(LIMIT_SECONDS, TimeUnit.SECONDS)) {
                throw new IllegalStateException("the items were not put within " + LIMIT_SECONDS + " s");
            }
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
        try (DistributedQueue<byte[]> queue = queue(client, consumer, path)) {
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

    private static DistributedQueue<byte[]> queue(
            CuratorFramework client, QueueConsumer<byte[]> consumer, String path) {
        return QueueBuilder.builder(client, consumer, new Bytes(), path).lockPath(path + "-locks").buildQueue();
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
