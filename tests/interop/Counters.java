import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.CachedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.retry.RetryNTimes;

/** Curator's counters and shared values: each command makes one, uses it, and forgets it. */
final class Counters {
    private static final RetryNTimes RETRY = new RetryNTimes(1000, 1);

    private Counters() {}

    static ObjectNode obey(JsonNode command, CuratorFramework client) throws Exception {
        ObjectNode result = new ObjectMapper().createObjectNode();
        ArrayNode values = result.putArray("values");
        String path = command.get("path").asText();
        int times = command.path("times").asInt(1);
        switch (command.get("do").asText()) {
            case "counter.long":
                DistributedAtomicLong number = new DistributedAtomicLong(client, path, RETRY);
                for (int i = 0; i < times; i++) {
                    values.add(after(number.add(command.get("n").asLong())));
                }
                return result;
            case "counter.int":
                DistributedAtomicInteger small = new DistributedAtomicInteger(client, path, RETRY);
                for (int i = 0; i < times; i++) {
                    values.add(after(small.add(command.get("n").asInt())));
                }
                return result;
            case "counter.next":
                CachedAtomicLong cached = new CachedAtomicLong(new DistributedAtomicLong(client, path, RETRY), 3);
                for (int i = 0; i < times; i++) {
                    values.add(after(cached.next()));
                }
                return result;
            case "counter.shared":
                try (SharedCount count = new SharedCount(client, path, command.get("seed").asInt())) {
                    count.start();
                    for (int i = 0; i < times; i++) {
                        while (!count.trySetCount(count.getVersionedValue(), count.getCount() + command.get("n").asInt())) {
                            Thread.yield();
                        }
                    }
                    values.add(count.getCount());
                }
                return result;
            case "counter.value":
                try (SharedValue value = new SharedValue(client, path, command.get("seed").asText().getBytes("UTF-8"))) {
                    value.start();
                    result.put("leader", new String(value.getValue(), "UTF-8"));
                    if (command.has("set")) {
                        value.setValue(command.get("set").asText().getBytes("UTF-8"));
                    }
                }
                return result;
            default:
                throw new IllegalArgumentException("no such command: " + command.get("do"));
        }
    }

    private static <T extends Number> long after(AtomicValue<T> value) {
        if (!value.succeeded()) {
            throw new IllegalStateException("Curator did not succeed");
        }
        return value.postValue().longValue();
    }
}
