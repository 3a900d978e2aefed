// A client of the compositing server, made from the messages of the deployment guide alone.
//
// It asks for batches of frames of one avatar, saves them as JPEG files, and prints where the time
// went. Frames of the avatar stay with the server: visual_frames is empty.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	pb "lipwire-go-client/proto"

	"google.golang.org/grpc"
)

const (
	windowBytes    = 32 * 16 * 16 * 4 // float32, little endian
	maxMessageSize = 100 * 1024 * 1024
)

func main() {
	address := flag.String("address", "localhost:50052", "the compositing server")
	model := flag.String("model", "demo", "the avatar")
	batch := flag.Int("batch", 24, "frames in a request, 1 to 50")
	start := flag.Int("start", 0, "frame of the avatar to begin with")
	audio := flag.String("audio", "", "file of audio features, one window or one a frame: "+
		"32 x 16 x 16 float32 each (default: zeros)")
	out := flag.String("out", "frames", "folder for the JPEG files")
	timeout := flag.Duration("timeout", 60*time.Second, "the longest to wait for an answer")
	flag.Parse()
	log.SetFlags(0)
	if err := run(*address, *model, *audio, *out, *batch, *start, *timeout); err != nil {
		log.Fatal(err)
	}
}

func run(address, model, audio, out string, batch, start int, timeout time.Duration) error {
	features, err := audioFeatures(audio)
	if err != nil {
		return err
	}
	conn, err := dial(address, grpc.WithDefaultCallOptions(
		grpc.MaxCallRecvMsgSize(maxMessageSize),
		grpc.MaxCallSendMsgSize(maxMessageSize),
	))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewCompositingServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()

	health, err := client.Health(ctx, &pb.HealthRequest{})
	if err != nil {
		return err
	}
	fmt.Printf("Server %s, healthy: %t\n", health.GetVersion(), health.GetHealthy())

	begun := time.Now()
	answer, err := client.InferBatchComposite(ctx, &pb.CompositeBatchRequest{
		ModelId:       model,
		AudioFeatures: features,
		BatchSize:     int32(batch),
		StartFrameIdx: int32(start),
	})
	if err != nil {
		return err
	}
	elapsed := float64(time.Since(begun).Microseconds()) / 1000
	if !answer.GetSuccess() {
		return fmt.Errorf("error: %s", answer.GetError())
	}

	frames := answer.GetCompositedFrames()
	inference, compositing := answer.GetInferenceTimeMs(), answer.GetCompositeTimeMs()
	fmt.Printf("Received %d frames\n", len(frames))
	fmt.Printf("Inference: %.2fms, Compositing: %.2fms, Total: %.2fms\n",
		inference, compositing, answer.GetTotalTimeMs())
	fmt.Printf("Here: %.2fms, %.2fms of them gRPC and waiting\n",
		elapsed, elapsed-float64(inference)-float64(compositing))
	return save(frames, out)
}

// audioFeatures reads windows from a file; without one it gives a window of zeros.
func audioFeatures(path string) ([]byte, error) {
	if path == "" {
		return make([]byte, windowBytes), nil
	}
	features, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(features) == 0 || len(features)%windowBytes != 0 {
		return nil, fmt.Errorf("%s has %d bytes; allowed are multiples of %d",
			path, len(features), windowBytes)
	}
	return features, nil
}

func save(frames [][]byte, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i, frame := range frames {
		path := filepath.Join(folder, fmt.Sprintf("output_%d.jpg", i))
		if err := os.WriteFile(path, frame, 0o644); err != nil {
			return err
		}
	}
	return nil
}
